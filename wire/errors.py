"""One tree of errors. Every error carries a stable code, the offending values and, where a person can act, a remedy.

BitfleetError
├── ConfigError      E-CONFIG      a setting is wrong or unknown
├── DataError        E-DATA        training data are missing, damaged or of the wrong shape
├── WireError        E-FRAME, ...  bytes are not what they claim to be
│   └── Refused      E-...         an update that the coordinator does not accept, and why
├── Declined         E-...         a device does not take a plan, and why
├── TransportError   E-LINK        the broker cannot be reached or says no
└── StateError       E-STATE       files on disk contradict each other
"""

from __future__ import annotations

__all__ = [
    "BitfleetError",
    "ConfigError",
    "DataError",
    "Declined",
    "Refused",
    "StateError",
    "TransportError",
    "WireError",
    "said_by",
]


class BitfleetError(Exception):
    """The root: `code` is stable and documented in docs/errors.md, `remedy` may be empty."""

    code = "E-INTERNAL"

    def __init__(self, message: str, *, code: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.remedy = remedy

    def __str__(self) -> str:
        tail = f"; {self.remedy}" if self.remedy else ""
        return f"{self.code}: {self.message}{tail}"


class ConfigError(BitfleetError):
    """A setting is wrong or unknown."""

    code = "E-CONFIG"


class DataError(BitfleetError):
    """Training data are missing, damaged or of the wrong shape."""

    code = "E-DATA"


class WireError(BitfleetError):
    """Bytes are not what they claim to be."""

    code = "E-FRAME"


class Refused(WireError):
    """An update that the coordinator does not accept."""

    code = "E-REFUSED"


class Declined(BitfleetError):
    """A device does not take a plan."""

    code = "E-DECLINED"


class TransportError(BitfleetError):
    """The broker cannot be reached or says no."""

    code = "E-LINK"


class StateError(BitfleetError):
    """Files on disk contradict each other."""

    code = "E-STATE"


def said_by(exc: Exception) -> str:
    """Returns the words of any error for a message that names the file: the system's without their number and path."""
    return (isinstance(exc, OSError) and exc.strerror) or str(exc) or type(exc).__name__
