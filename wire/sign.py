"""Ed25519 over a frame's body: the coordinator signs plans and receipts, a device that knows its key checks them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wire.errors import ConfigError, WireError, said_by
from wire.frame import Frame, Kind, decode_frame

__all__ = ["check_signature", "make_key", "open_signed", "public_key", "signer"]

_KEY_BYTES = 32


def make_key(path: Path) -> None:
    """Leaves a new private key at `path`, readable by its owner only."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # whole or not at all, and only if there is none
        draft.unlink()
    except OSError as exc:
        with suppress(OSError):
            draft.unlink()
        there = isinstance(exc, FileExistsError)
        remedy = "a key is never overwritten" if there else "see that its folder is there and may be written"
        raise ConfigError(f"key {path} cannot be made: {said_by(exc)}", remedy=remedy) from exc


def signer(path: Path) -> Callable[[bytes], bytes]:
    """Returns the function that signs with the private key at `path`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    return Ed25519PrivateKey.from_private_bytes(_read_key(path)).sign


def public_key(path: Path) -> str:
    """Returns the public half of the private key at `path`, in hex: what goes into a device's configuration."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    private = Ed25519PrivateKey.from_private_bytes(_read_key(path))
    return private.public_key().public_bytes_raw().hex()


def open_signed(data: bytes, kind: Kind, public: str) -> Frame:
    """Returns the frame in `data`, its signature checked if there is a key to check it with."""
    frame = decode_frame(data, kind)
    if public:
        check_signature(frame, public)
    return frame


def check_signature(frame: Frame, public: str) -> None:
    """Raises WireError unless the frame is signed with the private half of `public`."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    if frame.signature is None:
        raise WireError("a plan or receipt without a signature, and this device knows its coordinator's key",
                        code="E-SIGNATURE")  # fmt: skip
    key = Ed25519PublicKey.from_public_bytes(_key_bytes(public, "coordinator_key"))
    try:
        key.verify(frame.signature, bytes(frame.body))
    except InvalidSignature as exc:
        raise WireError("the signature is not by the coordinator's key", code="E-SIGNATURE") from exc


def _read_key(path: Path) -> bytes:
    try:
        return _key_bytes(path.read_text("ascii"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"key {path} cannot be read: {said_by(exc)}") from exc


def _key_bytes(text: str, place: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{place} is not a key of {2 * _KEY_BYTES} hex digits")
    return key
