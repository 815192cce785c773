"""From the server's state to a plan, and from a round's updates to the next state. All that a strategy is.

Every step is a function of files: a killed coordinator does it again and comes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator.learning.checkpoint import ServerState, load_state, save_state
from coordinator.learning.mean import Mean
from coordinator.learning.optimiser import server_step
from coordinator.recipe import Recipe
from coordinator.rounds.accept import decode_accepted
from coordinator.rounds.book import Counted
from coordinator.rounds.phases import RoundRow
from models.archs import spec_of
from models.init import initial
from models.tasks import task
from wire.errors import StateError, WireError
from wire.frame import FRAME_BYTES
from wire.messages.blob import Downlink, delta_blob, digest_bytes, snapshot_blob
from wire.messages.plan import BlobRef, Envelope, RoundPlan, TrainSettings, encode_plan
from wire.messages.update import MAX_HEADER_BYTES
from wire.params import Params, delta, params_digest
from wire.pieces.assembly import sweep_drafts, write_whole
from wire.spec import ModelSpec, canonical_json, spec_digest
from wire.stages.tensors import Codec

__all__ = ["Planner"]

# A reference takes about 240 bytes of every plan; a device that missed more rounds fetches a snapshot.
_MOST_DELTAS = 4
_START = "start"


@dataclass
class Planner:
    """The learning side of one run, over its folder. `session` counts the coordinator's starts."""

    run: str
    recipe: Recipe
    folder: Path
    session: int = 0
    spec: ModelSpec = field(init=False)
    state: ServerState = field(init=False)
    initial_digest: str = field(init=False)
    base: str = field(init=False)
    model_digest: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("blobs", "journal", "checkpoints", "inbox"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            sweep_drafts(self.folder / name)
        recipe, goal = self.recipe, task(self.recipe.task)
        self.spec = spec_of(recipe.model or goal.arch, goal.input, goal.outputs, recipe.seed, recipe.freeze)
        first = initial(self.spec)
        self.initial_digest = params_digest(first)
        if not self.checkpoint(_START).exists():
            save_state(self.checkpoint(_START), ServerState(first, first), self.spec)

    @property
    def spec_digest(self) -> str:
        """Returns the digest that devices ask the spec by."""
        return spec_digest(self.spec)

    @property
    def spec_bytes(self) -> bytes:
        """Returns the spec as devices fetch it."""
        return canonical_json(self.spec.to_json())

    @property
    def most_update_bytes(self) -> int:
        """Returns a limit that no right update of this run exceeds."""
        up = self.recipe.uplink
        return Codec.of(self.spec.trainable, up.stages, up.scope).most_bytes + MAX_HEADER_BYTES + FRAME_BYTES

    @property
    def blob_digests(self) -> set[str]:
        """Returns the blobs that the next plan will name."""
        return {ref.digest for ref in self.state.blobs}

    def checkpoint(self, number: int | str) -> Path:
        """Returns the file of the state after a round."""
        return self.folder / "checkpoints" / f"{number}.state"

    def journal(self, into: int, update: Counted) -> Path:
        """Returns the file of an accepted update."""
        return self.folder / "journal" / str(into) / f"{update.device}.{update.round}.update"

    def resume(self, number: int | None) -> None:
        """Takes the state after round `number`, or the start."""
        self._take(load_state(self.checkpoint(_START if number is None else number), self.spec))

    def plan(self, row: RoundRow, sign: Callable[[bytes], bytes] | None) -> bytes:
        """Returns the plan of a round."""
        recipe = self.recipe
        train = recipe.train
        plan = RoundPlan(
            run=self.run,
            round=row.number,
            seed=recipe.seed,
            base=self.base,
            initial=self.initial_digest,
            spec=self.spec_digest,
            spec_bytes=len(self.spec_bytes),
            blobs=self.state.blobs,
            train=TrainSettings(recipe.task, train.epochs, train.batch, train.rate, train.momentum, train.decay),
            deadline_s=recipe.devices.deadline_s,
            kind=recipe.uplink.kind,
            scope=recipe.uplink.scope,
            stages=recipe.uplink.stages,
            envelope=Envelope(disk_bytes=12 * self.spec.count),
        )
        return encode_plan(plan, sign)

    def fold(self, row: RoundRow, counted: list[Counted], plan_of: Callable[[int], RoundPlan | None]) -> Iterator[None]:
        """Yields after each update; at its end the next state is saved and taken, or if it raises the old one stays."""
        mean = Mean()
        for update in counted:
            mean.fold(self._read(row, update, plan_of), self._weight(row, update))
            yield
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by its value
            after = self._next_state(row, mean.result())
        save_state(self.checkpoint(row.number), after, self.spec)
        self._take(after)

    def tidy(self, number: int) -> None:
        """Deletes the journal and the checkpoints that no restart needs any more."""
        keep = {self.checkpoint(name).name for name in (_START, number, number - 1)}
        for path in (self.folder / "checkpoints").iterdir():
            if path.name not in keep:
                path.unlink()
        for folder in (self.folder / "journal").iterdir():
            if int(folder.name) < number - 1:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()

    def _take(self, state: ServerState) -> None:
        self.state = state
        self.base, self.model_digest = params_digest(state.held), params_digest(state.model)

    def _read(self, row: RoundRow, update: Counted, plan_of: Callable[[int], RoundPlan | None]) -> Params:
        data = self.journal(row.number, update).read_bytes()
        plan = plan_of(update.round)
        if digest_bytes(data) != update.digest or plan is None:
            raise StateError(f"the journal of round {row.number} does not hold {update.device}'s update as accepted")
        return decode_accepted(data, plan, self.spec)[1]

    def _weight(self, row: RoundRow, update: Counted) -> float:
        """A late update counts less: examples / sqrt(1 + rounds late) (Nguyen et al., FedBuff, 2022)."""
        return float(update.examples / (1 + row.number - update.round) ** 0.5)

    def _next_state(self, row: RoundRow, mean: Params) -> ServerState:
        old = self.state
        change = mean if self.recipe.uplink.kind == "delta" else delta(mean, old.held)
        model, slots = server_step(old.model, change, old.slots, self.recipe.server)
        _check_finite({"the model": model, **{f"slot {name}": slot for name, slot in slots.items()}})
        down = self.recipe.downlink
        if not down.stages:
            ref, data = snapshot_blob(model, self.spec)
            self._keep(ref, data)
            return ServerState(model, model, slots, (ref,))
        coding, key = Downlink(down.stages, down.scope), (self.recipe.seed, "down", row.number)
        ref, data, held = delta_blob(model, old.held, self.spec, coding, key)
        snapshot, whole = snapshot_blob(held, self.spec)
        self._keep(ref, data)
        self._keep(snapshot, whole)
        deltas = [blob for blob in old.blobs if blob.source][-(_MOST_DELTAS - 1) :]
        return ServerState(model, held, slots, (*deltas, ref, snapshot))

    def _keep(self, ref: BlobRef, data: bytes) -> None:
        write_whole(self.folder / "blobs" / ref.digest, data)


def _check_finite(parts: Mapping[str, Params]) -> None:
    """Raises WireError for a step that left the range of float32: every update is finite, their sum need not be."""
    for part, tensors in parts.items():
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise WireError(f"{part} would not be finite in {name!r} after this round", code="E-NONFINITE")
