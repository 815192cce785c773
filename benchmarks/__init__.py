"""The figures that the README and the issues quote, each measured again by `scripts/bench NAME`.

A benchmark is a file here with `run(options) -> Result`; its first docstring line is what the list shows.
"""

import os

__all__: list[str] = []

# Before NumPy is loaded: a loop on several cores could not stand beside a device's single thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
