"""The figures that the README and the issues quote, each measured again by `scripts/bench NAME`.

A benchmark is a file here with `run(options) -> Result`; its first docstring line is what the list shows.
"""

__all__: list[str] = []
