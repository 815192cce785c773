"""From a trained model to a ladder of files: what is chosen, what is written, what it measures."""
