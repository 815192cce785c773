"""New models on their way to the devices: published, offered in stages, watched, and stopped where they fail."""
