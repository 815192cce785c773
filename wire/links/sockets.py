"""What we ask of the kernel about a TCP socket: send at once, give up on a dead peer, and wait."""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["tune", "wait"]

_STUCK_MS = 60_000


def tune(sock: Any) -> None:
    """Changes `sock` to send small packets at once, and to break when sent bytes stay unanswered for a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_MS)


def wait(sock: Any, writing: bool, wake: Sequence[int], wait_s: float) -> tuple[bool, bool, bool]:
    """Returns whether `sock` is readable (or broken), whether it is writable, and whether one of `wake` is readable."""
    watch = select.poll()
    if sock is not None:
        pending = getattr(sock, "pending", None)
        if pending and pending():  # TLS has decrypted more than was read: the kernel would not report it again
            return True, False, False
        watch.register(sock, select.POLLIN | (select.POLLOUT if writing else 0))
    for descriptor in wake:
        watch.register(descriptor, select.POLLIN)
    found = dict(watch.poll(math.ceil(wait_s * 1000)))
    mask = 0 if sock is None else found.pop(sock.fileno(), 0)
    return bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT), bool(found)
