"""How hypothesis runs here: the same examples every time, and no time limits."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "wire", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wire")
