"""The server's state after a round, as one file: the model, what the devices hold, the optimiser's memory, the blobs.

A frame of kind CHECKPOINT. Its payload is raw float32 in the spec's order: the model, then the held model if it is
another one, then each slot of the optimiser.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from coordinator.learning.optimiser import Slots
from coordinator.learning.schedule import Course
from wire.errors import StateError, WireError, said_by
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.plan import BlobRef
from wire.params import Params, flatten, params_digest, split
from wire.pieces.assembly import write_whole
from wire.spec import ModelSpec

__all__ = ["ServerState", "load_state", "save_state"]


@dataclass(frozen=True, slots=True)
class ServerState:
    """`model` is the server's; `held` is the one that the devices start the next round from.

    `course` is where the schedule of levels stands, `steps` how often the model was changed.
    """

    model: Params
    held: Params
    slots: Slots = field(default_factory=dict)
    blobs: tuple[BlobRef, ...] = ()
    course: Course = field(default_factory=lambda: Course(1))
    steps: int = 0


def save_state(path: Path, state: ServerState, spec: ModelSpec, durable: bool = True) -> None:
    """Writes the state in one step."""
    apart = params_digest(state.model) != params_digest(state.held)
    header = {
        "model": params_digest(state.model),
        "apart": apart,
        "slots": sorted(state.slots),
        "blobs": [asdict(ref) for ref in state.blobs],
        "course": asdict(state.course),
        "steps": state.steps,
    }
    parts = [state.model, *([state.held] if apart else []), *(state.slots[name] for name in sorted(state.slots))]
    payload = b"".join(flatten(part, spec.trainable).astype("<f4").tobytes() for part in parts)
    write_whole(path, encode_frame(Kind.CHECKPOINT, header, payload), durable)


def load_state(path: Path, spec: ModelSpec) -> ServerState:
    """Returns the state in a file; raises StateError if it is damaged."""
    try:
        frame = decode_frame(path.read_bytes(), Kind.CHECKPOINT)
        values = np.frombuffer(frame.payload, "<f4").astype(np.float32)
        parts = [split(part, spec.trainable) for part in values.reshape(-1, max(1, spec.count))]
        model, rest = parts[0], parts[1:]
        held = rest.pop(0) if frame.header["apart"] else model
        slots = dict(zip(frame.header["slots"], rest, strict=True))
        blobs = tuple(BlobRef(**ref) for ref in frame.header["blobs"])
        course, steps = Course(**frame.header["course"]), int(frame.header["steps"])
    except (OSError, WireError, ValueError, KeyError, IndexError, TypeError) as exc:
        raise StateError(f"checkpoint {path} cannot be read: {said_by(exc)}") from exc
    if params_digest(model) != frame.header["model"]:
        raise StateError(f"checkpoint {path} holds another model than it says")
    return ServerState(model, held, slots, blobs, course, steps)
