"""The messages: plan, update, blob, and the small reports around them."""
