"""What is said of a link that did not come about or ended: where to, what happened, and what a person may mix up."""

from __future__ import annotations

import ssl

from wire.links.link import Link

__all__ = ["broken", "unopened"]

_PLAIN, _TLS = "does this port want mqtts://?", "does this port speak TLS?"


def unopened(link: Link, exc: Exception) -> str:
    """Returns why no connection could be made."""
    question = _TLS if link.tls else _PLAIN
    return f"{link.host}:{link.port}: {exc}{f'; {question}' if _mixed_up(exc) else ''}"


def broken(link: Link, up: bool) -> str:
    """Returns what it means that a link ended without a word why; `up` if the broker had answered before."""
    if up:
        return "the link broke"
    certificate = "" if link.cert_file else "; does it want a certificate (cert_file)?"
    return f"{link.host}:{link.port} closed before it answered{certificate if link.tls else f'; {_PLAIN}'}"


def _mixed_up(exc: Exception) -> bool:
    """Tells whether one side may not expect TLS: one that sends an alert or a certificate, does."""
    if isinstance(exc, ssl.SSLError):
        return not isinstance(exc, ssl.SSLCertVerificationError) and "ALERT" not in (exc.reason or "")
    return isinstance(exc, ConnectionResetError)
