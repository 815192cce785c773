"""What we ask of the kernel about a TCP socket: send at once, give up on a dead peer, wait, and count bytes."""

from __future__ import annotations

import math
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["Counted", "add_counts", "count_bytes", "tune", "wait"]

Counted = tuple[int, int]
"""Bytes of one socket, or of many: sent (and acknowledged by the other side's kernel), received."""

_STUCK_MS = 60_000
_INFO_BYTES, _ACKED_AT = 136, 120  # struct tcp_info of Linux 4.1: tcpi_bytes_acked, then tcpi_bytes_received


def tune(sock: Any) -> None:
    """Changes `sock` to send small packets at once, and to break when sent bytes stay unanswered for a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_MS)


def count_bytes(sock: Any) -> Counted | None:
    """Returns the payload bytes of this connection as the kernel counts them; None where it does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(info) < _INFO_BYTES:
        return None
    acked, received = struct.unpack_from("=QQ", info, _ACKED_AT)
    return max(0, acked - 1), received  # the kernel counts the SYN that opened the connection as one byte acknowledged


def add_counts(one: Counted | None, other: Counted | None) -> Counted | None:
    """Returns the sum; None if either is unknown."""
    return None if one is None or other is None else (one[0] + other[0], one[1] + other[1])


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
