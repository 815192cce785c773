"""Recipes that ship with Bitfleet, one TOML file each."""
