"""How a model on trial ends, and what is remembered of one that had to go."""
