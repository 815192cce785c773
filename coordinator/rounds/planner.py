"""From the server's state to a plan, and from a round's updates to the next state. All that a strategy is.

Every step is a function of files: a killed coordinator does it again and comes to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator.learning.checkpoint import ServerState, load_state, save_state
from coordinator.learning.evaluator import Question
from coordinator.learning.mean import Mean
from coordinator.learning.optimiser import server_step
from coordinator.learning.privacy import noise_of, private_mean
from coordinator.learning.schedule import Course, first_course, mean_loss, next_course, scheduled
from coordinator.recipe import Recipe
from coordinator.recipes.personal import planned_personal
from coordinator.rounds.accept import decode_accepted
from coordinator.rounds.book import Counted
from coordinator.rounds.descent import chain_of, descend, named
from coordinator.rounds.phases import RoundRow
from models.archs import edge_name
from models.init import initial
from models.trunk import read_arrays
from wire.bits import Bits
from wire.errors import StateError, WireError
from wire.frame import FRAME_BYTES
from wire.messages.blob import Downlink, digest_bytes, trunk_blob
from wire.messages.plan import MAX_GIVEN_UP, Envelope, RoundPlan, encode_plan
from wire.messages.train import TrainSettings
from wire.messages.update import MAX_HEADER_BYTES, UpdateHeader
from wire.params import Params, clipped, delta, params_digest
from wire.pieces.assembly import make_folder, sweep_drafts, write_whole
from wire.spec import ModelSpec, canonical_json, spec_digest
from wire.stages.tensors import Codec

__all__ = ["Planner"]

_START = "start"
_TRUNK = "trunk"


@dataclass
class Planner:
    """The learning side of one run, over its folder. `session` counts the coordinator's starts.

    `secret` names the noise of private runs: whoever knows it can take the noise away, so no plan carries it.
    """

    run: str
    recipe: Recipe
    folder: Path
    session: int = 0
    secret: bytes = b""
    durable: bool = True
    spec: ModelSpec = field(init=False)
    state: ServerState = field(init=False)
    initial_digest: str = field(init=False)
    trunk: str = field(init=False, default="")
    whole: tuple[str, ...] = field(init=False)
    base: str = field(init=False)
    model_digest: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("blobs", "journal", "checkpoints", "inbox"):
            make_folder(self.folder / name, self.durable)
            sweep_drafts(self.folder / name)
        recipe = self.recipe
        self.spec = recipe.spec
        # Once, not for every piece of an update: "first" and "last" are looked up in the whole net.
        self.whole = tuple(edge_name(self.spec, name) for name in recipe.uplink.whole)
        first = initial(self.spec)
        self.initial_digest = params_digest(first)
        if not self.checkpoint(_START).exists():
            start = ServerState(first, first, course=first_course(recipe.schedule, recipe.train.rate))
            save_state(self.checkpoint(_START), start, self.spec, self.durable)
        if not (self.folder / "spec.json").exists():  # so that an open run can be exported too
            write_whole(self.folder / "spec.json", self.spec_bytes, self.durable)
        if recipe.trunk:
            self.trunk = self._trunk(Path(recipe.trunk))

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
        up, most = self.recipe.uplink, Course(self.recipe.schedule.most)
        stages = scheduled(up.stages, most, self.recipe.schedule)
        return Codec.of(self.spec.trainable, stages, up.scope, self.whole).most_bytes + MAX_HEADER_BYTES + FRAME_BYTES

    @property
    def blob_digests(self) -> set[str]:
        """Returns the blobs that the next plan will lead to."""
        chain = chain_of(self.state.blobs)
        others = {self.trunk, digest_bytes(chain) if chain else ""} - {""}
        return {ref.digest for ref in self.state.blobs} | others

    @property
    def levels(self) -> int | None:
        """Returns the levels of the next plan's uplink, if a schedule sets them."""
        return None if self.recipe.schedule.rule == "fixed" else self.state.course.levels

    def order(self, number: int, count: int) -> list[int]:
        """Returns the order in which `count` devices are drawn for a round; nobody can foretell a private run's."""
        names = (self.secret.hex(), self.run) if self.recipe.privacy.clip else (self.recipe.seed,)
        return [int(at) for at in Bits.of(*names, "select", number).permutation(count)]

    def question(self, number: int) -> Question:
        """Returns what is to be measured after a round."""
        recipe, want = self.recipe, self.recipe.evaluate
        trunk = str(self.folder / "blobs" / self.trunk) if self.trunk else ""
        path = str(self.checkpoint(number))
        return Question(self.spec, path, recipe.task, recipe.train.transforms, want.bits, want.grid, want.range, trunk)

    def checkpoint(self, number: int | str) -> Path:
        """Returns the file of the state after a round."""
        return self.folder / "checkpoints" / f"{number}.state"

    def journal(self, into: int, update: Counted) -> Path:
        """Returns the file of an accepted update."""
        return self.folder / "journal" / str(into) / f"{update.device}.{update.round}.update"

    def resume(self, number: int | None) -> None:
        """Takes the state after round `number`, or the start."""
        self._take(load_state(self.checkpoint(_START if number is None else number), self.spec))

    def plan(self, row: RoundRow, sign: Callable[[bytes], bytes] | None, given_up: Sequence[int] = ()) -> bytes:
        """Returns the plan of a round; `given_up` are the abandoned ones, which only feedback asks about."""
        recipe, up = self.recipe, self.recipe.uplink
        chain = chain_of(self.state.blobs)
        plan = RoundPlan(
            run=self.run,
            round=row.number,
            seed=recipe.seed,
            base=self.base,
            initial=self.initial_digest,
            spec=self.spec_digest,
            spec_bytes=len(self.spec_bytes),
            blobs=named(self.state.blobs),
            train=self._train_settings(),
            deadline_s=recipe.devices.deadline_s,
            kind=up.kind,
            scope=up.scope,
            stages=scheduled(up.stages, self.state.course, recipe.schedule),
            envelope=Envelope(disk_bytes=12 * self.spec.count),
            clip=recipe.privacy.clip,
            feedback=up.feedback,
            whole=self.whole,
            chain=digest_bytes(chain) if chain else "",
            chain_bytes=len(chain),
            trunk=self.trunk,
            trunk_bytes=self._size(self.trunk),
            given_up=tuple(given_up)[-MAX_GIVEN_UP:] if up.feedback else (),
        )
        return encode_plan(plan, sign)

    def _train_settings(self) -> TrainSettings:
        train = self.recipe.train
        return TrainSettings(
            task=self.recipe.task,
            epochs=train.epochs,
            batch=train.batch,
            rate=train.rate_at(self.state.steps, self.recipe.rounds),
            momentum=train.momentum,
            decay=train.decay,
            transforms=train.transforms,
            penalty=train.penalty,
            personal=planned_personal(self.recipe.personal),
        )

    def fold(self, row: RoundRow, counted: list[Counted], plan_of: Callable[[int], RoundPlan | None]) -> Iterator[None]:
        """Yields after each update; at its end the next state is saved and taken, or if it raises the old one stays."""
        mean, losses, recipe = Mean(), [], self.recipe
        private = recipe.privacy.clip > 0
        for update in counted:
            header, tensors = self._read(row, update, plan_of)
            if update.round == row.number:  # what a late one tells is the loss of an older model
                losses.append((_loss_of(header), float(update.examples)))
            mean.fold(clipped(tensors, recipe.privacy.clip) if private else tensors, self._weight(row, update))
            yield
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by its value
            change = self._private(mean) if private else mean.result()
            after = self._next_state(row, change, mean_loss(losses))
        save_state(self.checkpoint(row.number), after, self.spec, self.durable)
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

    def _read(
        self, row: RoundRow, update: Counted, plan_of: Callable[[int], RoundPlan | None]
    ) -> tuple[UpdateHeader, Params]:
        data = self.journal(row.number, update).read_bytes()
        plan = plan_of(update.round)
        if digest_bytes(data) != update.digest or plan is None:
            raise StateError(f"the journal of round {row.number} does not hold {update.device}'s update as accepted")
        return decode_accepted(data, plan, self.spec)

    def _weight(self, row: RoundRow, update: Counted) -> float:
        """A late update counts less: examples / sqrt(1 + rounds late) (Nguyen et al., FedBuff, 2022).

        Under privacy every device counts the same: what one device may change must not depend on what it says.
        """
        if self.recipe.privacy.clip > 0:
            return 1.0
        return float(update.examples / (1 + row.number - update.round) ** 0.5)

    def _private(self, mean: Mean) -> Params:
        """Returns the private mean, with the noise of this step: rounds that changed nothing are no steps."""
        privacy, goal = self.recipe.privacy, self.recipe.devices.goal
        noise = noise_of(self.spec.trainable, privacy, self.secret, self.run, self.state.steps + 1, goal)
        return private_mean(mean.sums, noise, goal)

    def _next_state(self, row: RoundRow, mean: Params, loss: float | None) -> ServerState:
        old, recipe = self.state, self.recipe
        change = mean if recipe.uplink.kind == "delta" else delta(mean, old.held)
        model, slots = server_step(old.model, change, old.slots, recipe.server)
        _check_finite({"the model": model, **{f"slot {name}": slot for name, slot in slots.items()}})
        down, key = Downlink(recipe.downlink.stages, recipe.downlink.scope), (recipe.seed, "down", row.number)
        held, blobs = descend(model, old, self.spec, down=down, key=key, keep=self._keep)
        rate = recipe.train.rate_at(old.steps + 1, recipe.rounds)
        course = next_course(old.course, recipe.schedule, loss, old.steps, rate)
        return ServerState(model, held, slots, blobs, course, old.steps + 1)

    def _trunk(self, path: Path) -> str:
        """Keeps the frozen tensors of a .npz file as a blob and returns its digest; a resumed run has it already."""
        note = self.folder / _TRUNK
        if not note.exists():
            data = trunk_blob(read_arrays(path, self.spec.frozen), self.spec)
            self._keep(digest_bytes(data), data)
            write_whole(note, digest_bytes(data).encode())
        return note.read_text()

    def _size(self, digest: str) -> int:
        return (self.folder / "blobs" / digest).stat().st_size if digest else 0

    def _keep(self, digest: str, data: bytes) -> None:
        write_whole(self.folder / "blobs" / digest, data, self.durable)


def _loss_of(header: UpdateHeader) -> float:
    """Returns the loss that a device reported of the model as it received it; NaN if it reported none."""
    loss = header.metrics.get("loss_before")
    return float(loss) if isinstance(loss, int | float) else math.nan


def _check_finite(parts: Mapping[str, Params]) -> None:
    """Raises WireError for a step that left the range of float32: every update is finite, their sum need not be."""
    for part, tensors in parts.items():
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise WireError(f"{part} would not be finite in {name!r} after this round", code="E-NONFINITE")
