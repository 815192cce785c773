"""One line a log event: key=value pairs on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

__all__ = ["log_event"]


def log_event(event: str, **values: object) -> None:
    """Writes one line, with date and time in UTC; where standard error takes none, as on a full disk, it is lost."""
    pairs = " ".join(f"{name}={_quoted(value)}" for name, value in values.items())
    with suppress(OSError):
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} event={event} {pairs}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


def _quoted(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)  # a peer's text stays on its line
