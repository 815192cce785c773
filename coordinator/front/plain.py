"""Text from others as a terminal may show it: no markup, no control characters."""

from __future__ import annotations

from rich.text import Text

__all__ = ["plain"]


def plain(value: object) -> Text:
    """Returns a value's text as it is, with a question mark for every character that cannot be printed."""
    return Text("".join(sign if sign.isprintable() else "?" for sign in str(value)))
