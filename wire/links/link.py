"""Where the broker is, how to prove who we are (TLS files, a name and a password), and when to come back."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from wire.errors import ConfigError, said_by

__all__ = ["Backoff", "Link", "parse_link", "read_password", "tls_context"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_EXAMPLE = "write it like mqtt://127.0.0.1:1883 or mqtts://broker.example:8883"


@dataclass(frozen=True, slots=True)
class Link:
    """The address of a broker and the files that open it; the files are read at every attempt to connect."""

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait is uniform in [0, min(cap, base * 2^n)], n failures after the last link that lasted."""

    base_s: float = 0.5
    cap_s: float = 30.0
    lasted_s: float = 10.0

    def wait_s(self, failures: int, uniform: Callable[[], float]) -> float:
        """Returns a wait after so many failures before this one; `uniform` gives numbers in [0, 1)."""
        return uniform() * min(self.cap_s, self.base_s * 2.0 ** min(failures, 60))


def parse_link(
    url: str,
    *,
    username: str = "",
    password_file: Path | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
) -> Link:
    """Returns the link that `url` and the settings beside it describe; raises ConfigError on what cannot work."""
    parts = _split(url)
    name = username or unquote(parts.username or "")
    tls = parts.scheme == "mqtts"
    _check_settings(url, tls, name, password_file, (ca_file, cert_file, key_file))
    port = parts.port or _PORTS[parts.scheme]
    return Link(parts.hostname or "", port, tls, name, password_file, ca_file, cert_file, key_file)


def read_password(link: Link) -> str | None:
    """Returns the first line of the password file, None where there is no such file in the settings."""
    if link.password_file is None:
        return None
    try:
        lines = link.password_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"password file {link.password_file} cannot be read: {said_by(exc)}") from exc
    if not lines or not lines[0]:
        raise ConfigError(f"password file {link.password_file} is empty", remedy="put the password on its first line")
    return lines[0]


def tls_context(link: Link) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 or later that checks the broker's certificate and its host name."""
    try:
        context = ssl.create_default_context(cafile=str(link.ca_file) if link.ca_file else None)
        if link.cert_file:
            context.load_cert_chain(link.cert_file, link.key_file)
    except OSError as exc:  # ssl.SSLError is one of these
        files = ", ".join(str(file) for file in (link.ca_file, link.cert_file, link.key_file) if file)
        raise ConfigError(f"TLS files {files} cannot be used: {exc}", remedy="they must be PEM files") from exc
    if link.ca_file:  # Python 3.13 asks of authorities for extensions that most home-made ones lack; signed is signed
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _ClosingSocket
    return context


class _ClosingSocket(ssl.SSLSocket):
    """A TLS socket that closes itself when the handshake fails; paho would leave it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        secret, port = parts.password, parts.port
    except ValueError as exc:
        raise ConfigError(f"broker address {url!r} is not a URL: {exc}", remedy=_EXAMPLE) from exc
    if secret is not None:  # not repeated here: a message ends in a log
        raise ConfigError("a broker address holds a password, which would end in logs", remedy="use a password file")
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ConfigError(f"broker address {url!r} is not mqtt:// or mqtts:// with a host", remedy=_EXAMPLE)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"broker address {url!r} goes on after the port", remedy=_EXAMPLE)
    return parts


def _check_settings(
    url: str, tls: bool, name: str, password_file: Path | None, files: tuple[Path | None, Path | None, Path | None]
) -> None:
    _, cert_file, key_file = files
    if password_file and not name:
        raise ConfigError(f"password file {password_file} has no user name beside it", remedy="set the user name too")
    if any(files) and not tls:
        raise ConfigError(
            f"broker address {url!r} has TLS files but no TLS", remedy="write mqtts:// instead of mqtt://"
        )
    if (cert_file is None) != (key_file is None):
        raise ConfigError(f"certificate {cert_file} and key {key_file} belong together", remedy="set both or neither")
    for file in (password_file, *files):
        if file and not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where a folder may not be entered
            raise ConfigError(f"{file} is not a file, or out of reach", remedy="check the path and who may read it")
