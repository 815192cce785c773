"""The resident on the board: it moves bytes and minds the board. NumPy and torch are loaded by its child only."""
