"""Models on the device: which are accepted, which fits this board, and which one serves."""
