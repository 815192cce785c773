"""Waiting for events of a transport, with an end."""

from __future__ import annotations

from time import monotonic

from wire.transport import Down, Message, Sent, Unsent

__all__ = ["WAIT_S", "settled", "url_of", "wait_for"]

WAIT_S = 15.0


def wait_for(transport, kind, seen=None):
    """Returns the next event of `kind`; what came before it goes into `seen`."""
    ends_s = monotonic() + WAIT_S
    while monotonic() < ends_s:
        event = transport.receive(0.2)
        if isinstance(event, kind):
            return event
        if event is not None and seen is not None:
            seen.append(event)
    raise AssertionError(f"no {kind} within {WAIT_S} s; before it: {seen}")


def settled(transport):
    """Returns the messages that came before the answer to a message to oneself: all that was sent earlier."""
    transport.subscribe("settled")
    token = transport.publish("settled", b"")
    seen, got = [], set()
    while len(got) < 2:
        event = wait_for(transport, (Message, Sent, Unsent, Down), seen)
        if event == Message("settled", b""):
            got.add("message")
        elif event == Sent(token):
            got.add("sent")
        else:
            seen.append(event)
    transport.unsubscribe("settled")
    return [event for event in seen if isinstance(event, Message)]


def url_of(port):
    return f"mqtt://127.0.0.1:{port}"
