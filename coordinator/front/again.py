"""The command that goes on with what was interrupted, with the options that it needs, as a person would type it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BROKER", "FLEET", "HOME", "LINK", "again", "told_how_to_go_on"]

HOME = Path("~/.local/share/bitfleet")
FLEET = "home"
BROKER = "mqtt://127.0.0.1:1883"

_USUAL = {"home": HOME, "fleet": FLEET, "broker": BROKER}
LINK = ("fleet", "broker", "username", "password_file", "ca_file", "cert_file", "key_file")
"""The options that lead to the devices: a command that only reads the home has none of them."""

_NEEDED = ("home", *LINK)


def again(options: argparse.Namespace, *words: str, known: tuple[str, ...] = ()) -> str:
    """Returns the command of these words with the options that were given, but for those that the home `known`s."""
    given = {name: vars(options).get(name) for name in _NEEDED if name not in known}
    for name, value in given.items():
        if value not in (None, "", _USUAL.get(name)):
            words = (*words, f"--{name.replace('_', '-')}", str(value))
    return shlex.join(("bitfleet", *words))


@contextmanager
def told_how_to_go_on(command: str, begun: Callable[[], object] = lambda: True) -> Iterator[None]:
    """Has Ctrl-C name the command that goes on with what it stops, if that had `begun`."""
    try:
        yield
    except KeyboardInterrupt as exc:
        said = f"stopped; `{command}` goes on where it was" if begun() else "stopped; nothing was begun"
        raise KeyboardInterrupt(*(exc.args or (said,))) from None
