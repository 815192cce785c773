"""What is looked at in a model's file before any runtime sees it."""
