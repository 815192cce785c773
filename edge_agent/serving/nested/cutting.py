"""Cuts a variant's file from what is here of its bundle: a job of the probing child, since no digest vouches for it.

The header of a bundle is compressed JSON. Made to do harm it takes much memory to read, and then it is the child that
ends, whose limits are set for this job.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from wire.errors import WireError
from wire.messages.manifest import Variant
from wire.pieces.assembly import Assembly, write_whole

__all__ = ["cut_file", "cut_header"]

_SPARE_BYTES = 64 << 20
_COPIES = 6  # of portion and file at most: as read, in parts, joined, the header as text and as objects


def cut_header(config: AgentConfig, variant: Variant, store: Path) -> dict[str, Any]:
    """Returns the job of cutting a variant's file, and what it may take."""
    part = Assembly.open(store, variant.bundle, variant.prefix, portion=True).part
    return {
        "cut": str(part.absolute()),
        "prefix": variant.prefix,
        "path": str((store / variant.digest).absolute()),
        "digest": variant.digest,
        "more_bytes": _SPARE_BYTES + _COPIES * (variant.prefix + variant.size),
        "cpu_s": config.model.probe_s,
    }


def cut_file(header: Mapping[str, Any]) -> None:
    """Leaves the file under its path; WireError (E-BUNDLE) if the portion does not give it."""
    from wire.pieces.bundle import cut, width_of  # noqa: PLC0415  the resident makes headers only

    with Path(header["cut"]).open("rb") as file:
        portion = file.read(header["prefix"])
    data = cut(portion, width_of(portion, header["digest"]))
    if sha256(data).hexdigest() != header["digest"]:
        raise WireError("what was cut from the bundle is not the file that the manifest names", code="E-BUNDLE")
    write_whole(Path(header["path"]), data, durable=False)
