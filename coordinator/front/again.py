"""The command that goes on with what was interrupted, with the options that it needs, as a person would type it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BROKER", "FLEET", "HOME", "LINK", "again", "command_of", "told_how_to_go_on"]

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
    return command_of(words, {name: value for name, value in given.items() if value != _USUAL.get(name)})


def command_of(words: Iterable[str], given: Mapping[str, object]) -> str:
    """Returns a command as it is typed: its words, and the options that have a value, or several."""
    typed = ["bitfleet", *words]
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            typed += [f"--{name.replace('_', '-')}", str(each)] if each else []
    return shlex.join(typed)


@contextmanager
def told_how_to_go_on(command: str, begun: Callable[[], object] = lambda: True) -> Iterator[None]:
    """Has Ctrl-C name the command that goes on with what it stops, if that had `begun`."""
    try:
        yield
    except KeyboardInterrupt as exc:
        said = f"stopped; `{command}` goes on where it was" if begun() else "stopped; nothing was begun"
        raise KeyboardInterrupt(*(exc.args or (said,))) from None
