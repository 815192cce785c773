"""Whether an update may count. The checks run in one fixed order, and nothing is allocated from lengths it claims.

who       device = topic = header                             E-IDENTITY
size      no more than the plan's tensors can take            E-SIZE
frame     magic, lengths, CRC, protocol version, header       E-FRAME, E-CRC, E-VERSION
when      the round is open, the device was invited           E-ROUND-CLOSED, E-NOT-INVITED
base      trained from the model that the plan names          E-BASE, E-KIND
tensors   set, shapes, levels as planned; scales positive     E-TENSORS, E-SHAPE, E-LEVELS, E-SCALE
          positions increasing and in range; values finite    E-INDEX, E-NONFINITE
          no value larger than `max_magnitude` either way     E-MAGNITUDE
examples  a plausible count                                   E-EXAMPLES
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wire.errors import BitfleetError, Refused, StateError
from wire.frame import Frame, Kind, decode_frame, peek_header
from wire.messages.plan import RoundPlan
from wire.messages.update import MAX_HEADER_BYTES, UpdateHeader, decode_update, read_header
from wire.params import Params
from wire.spec import ModelSpec

__all__ = ["CONTENT_CODES", "RoundView", "check_update", "decode_accepted"]

CONTENT_CODES = frozenset(
    f"E-{name}"
    for name in (
        *("IDENTITY", "SIZE", "FRAME", "CRC", "VERSION", "BASE", "KIND"),
        *("TENSORS", "SHAPE", "LEVELS", "SCALE", "INDEX", "NONFINITE", "MAGNITUDE", "EXAMPLES"),
    )
)
"""Codes of updates that are wrong in themselves: if it was sent for the open round, that need not wait for another."""

_GROWTH = 10


@dataclass(frozen=True, slots=True)
class RoundView:
    """What acceptance has to know of a round. `usual` is the device's largest example count so far, if any."""

    plan: RoundPlan
    spec: ModelSpec
    takes: bool
    invited: bool
    usual: int | None
    max_examples: int
    max_magnitude: float


def check_update(
    data: bytes, device: str, most_bytes: int, look: Callable[[str, int], RoundView | None]
) -> UpdateHeader:
    """Returns the header of an update that may count; raises Refused with the code of the first check that fails."""
    try:
        return _checked(data, device, most_bytes, look)
    except (Refused, StateError):
        raise
    except BitfleetError as exc:
        raise Refused(exc.message, code=exc.code) from exc


def decode_accepted(data: bytes, plan: RoundPlan, spec: ModelSpec) -> tuple[UpdateHeader, Params]:
    """Returns the header and the tensors of an update that was accepted before."""
    frame = decode_frame(data, Kind.UPDATE, MAX_HEADER_BYTES)
    return read_header(frame), decode_update(frame, plan, spec)


def _checked(data: bytes, device: str, most_bytes: int, look: Callable[[str, int], RoundView | None]) -> UpdateHeader:
    claimed = (peek_header(data, MAX_HEADER_BYTES) or {}).get("device", device)
    if claimed != device:
        raise Refused(f"the update says device {str(claimed)[:40]!r}, it came from {device!r}", code="E-IDENTITY")
    if len(data) > most_bytes:
        raise Refused(f"{len(data)} bytes, at most {most_bytes} can be right", code="E-SIZE")
    frame = decode_frame(data, Kind.UPDATE, MAX_HEADER_BYTES)
    header = read_header(frame)
    view = look(header.run, header.round)
    if view is None or not view.takes:
        raise Refused(f"round {header.round} of run {header.run} takes no updates", code="E-ROUND-CLOSED")
    if not view.invited:
        raise Refused(f"{device!r} was not invited to round {header.round}", code="E-NOT-INVITED")
    _check_content(frame, header, view)
    return header


def _check_content(frame: Frame, header: UpdateHeader, view: RoundView) -> None:
    if header.base != view.plan.base:
        raise Refused(f"trained from model {header.base[:12]}, the plan says {view.plan.base[:12]}", code="E-BASE")
    if header.kind != view.plan.kind:
        raise Refused(f"sends {header.kind}, the plan says {view.plan.kind}", code="E-KIND")
    _check_magnitude(decode_update(frame, view.plan, view.spec), view.max_magnitude)
    most = view.max_examples if view.usual is None else min(view.max_examples, _GROWTH * view.usual)
    if not 1 <= header.examples <= most:
        raise Refused(f"{header.examples} examples, 1 to {most} are plausible", code="E-EXAMPLES")


def _check_magnitude(tensors: Params, most: float) -> None:
    """Refuses what is finite and still so large that the sum with others is not: one device could end every round."""
    for name, values in tensors.items():
        largest = float(max(values.max(initial=0), -values.min(initial=0)))
        if largest > most:
            raise Refused(f"a value of {largest:.3g} in {name!r}, at most {most:.3g} is plausible", code="E-MAGNITUDE")
