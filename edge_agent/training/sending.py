"""From what training gave to the bytes of the update: clipped, with what was not sent before, through the stages.

Error feedback (Seide et al., 2014; Karimireddy et al., 2019): with u = change + residual and s what stages made of it,

    residual <- u - s   if the update counted,      residual <- u   if it was refused

but 0 if it was refused for values that can be no right ones, which would be as wrong the next time;

so both are kept until the receipt says which. Clipping: u <- u * min(1, clip / ||u||_2) over all that is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from wire.frame import Kind, decode_frame
from wire.messages.plan import RoundPlan
from wire.messages.update import MAX_HEADER_BYTES, Update, UpdateHeader, decode_update, encode_update
from wire.params import Array, Params, add, clipped, delta
from wire.spec import ModelSpec

__all__ = ["encoded"]

_KEPT, _WANTED = "residual/", "wanted/"


def encoded(
    header: UpdateHeader, after: Params, base: Params, plan: RoundPlan, spec: ModelSpec, *, recalled: tuple[Params, str]
) -> tuple[bytes, Params]:
    """Returns the update's bytes and the arrays to remember for the next one."""
    change = delta(after, base) if plan.kind == "delta" else after
    if plan.clip:
        change = clipped(change, plan.clip)
    if plan.feedback:
        change = _with_residual(change, *recalled)
    data = encode_update(Update(header, change), plan, spec, after)
    return data, _unsent(data, change, plan, spec) if plan.feedback else {}


def _with_residual(change: Params, memory: Mapping[str, Array], fate: str) -> Params:
    if fate == "spoiled":
        return change
    prefix = _KEPT if fate == "accepted" else _WANTED
    kept = {name: memory[prefix + name] for name in change if prefix + name in memory}
    return add(change, kept) if len(kept) == len(change) else change


def _unsent(data: bytes, wanted: Params, plan: RoundPlan, spec: ModelSpec) -> Params:
    sent = decode_update(decode_frame(data, Kind.UPDATE, MAX_HEADER_BYTES), plan, spec)
    left = {_KEPT + name: wanted[name] - sent[name] for name in wanted}
    return left | {_WANTED + name: values for name, values in wanted.items()}
