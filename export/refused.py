"""The error of everything that happens after training."""

from __future__ import annotations

from wire.errors import BitfleetError

__all__ = ["ExportError"]


class ExportError(BitfleetError):
    """A model cannot be written as asked, or a written file did not pass the gate."""

    code = "E-EXPORT"
