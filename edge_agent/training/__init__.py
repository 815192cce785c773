"""What the training child does. Only this folder may load NumPy or torch."""
