"""What reshapes a net's own weights while it trains: quantisers, noise, masks. Master weights stay float.

Import from the submodules. `settings` loads no torch, so that a recipe can be checked without it.
"""
