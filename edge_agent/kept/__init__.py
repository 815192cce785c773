"""What a device keeps on disk until somebody answers: updates, the memory of a run, its own standing."""
