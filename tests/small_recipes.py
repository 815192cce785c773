"""Every shipped recipe, scaled down so that a test can run it whole."""

from __future__ import annotations

from coordinator.recipe import Recipe, load_recipe

__all__ = ["small_recipe"]

_SMALL = {
    "echo": ['model="vector-500"'],
    "combined": ['task="digits"', 'model="mlp-32-16"', "split.rule=iid"],
    "fedpt": ['task="digits"', 'model="mlp-32-16"'],
    "fedpt-private": ['model="mlp-32-32"'],
    "quped": ["personal.mix=[{centres=0},{centres=2,arch='mlp-12-12'}]", "personal.warm_rounds=1", "split.rule=iid"],
    "zerofl": ['task="digits"', 'model="cnn-4-6"'],
}


def small_recipe(name: str) -> Recipe:
    """Returns the recipe with two devices, a fifth of the digits, and three rounds."""
    return load_recipe(name, ["devices.goal=2", "rounds=3", "split.examples=300", *_SMALL.get(name, ())])
