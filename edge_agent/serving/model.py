"""The model that serves on this device, for the application: it follows every switch without a restart.

    from edge_agent import Model
    model = Model.current()
    scores = model.predict(x)
    answer = model.answer(x)  # outputs, version, variant, labels

Needs NumPy and onnxruntime, nothing else. The file is read at once and its digest compared, so a switch beside it
cannot tear it. A new model is loaded in the background: the one before answers until then. One that was withdrawn, with
none in its place, answers no more.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.config import load_config
from edge_agent.serving.health import ENOUGH, note_failure
from edge_agent.serving.outcome import load_outcome
from edge_agent.serving.session import open_session, run_rows
from edge_agent.serving.slots import POINTER, Slot, read_pointer, read_slot
from wire.errors import BitfleetError, DataError, StateError, WireError
from wire.events import log_event

if TYPE_CHECKING:
    from wire.params import Array

__all__ = ["DEFAULT_CONFIG", "Answer", "Loaded", "Model", "models_folder"]

DEFAULT_CONFIG = Path("/etc/bitfleet/agent.toml")
_LOOK_S = 0.5
_TRIES = 5
_AGAIN_S = 0.1
_GRACE_S = 5.0
"""So long a withdrawn model goes on: the next one may be near."""
_IN_A_ROW = 3
_ABSURD = 1e12  # a reading beyond it may overflow in any net
_MISSING, _UNREADABLE = (0, 0), (0, 1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory: its slot's facts, and the runtime's session over it."""

    facts: Mapping[str, Any]
    session: Any


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The outputs for one example, or in rows for many, and the model that gave them."""

    outputs: Array
    version: int
    variant: str
    labels: tuple[str, ...]


@dataclass(slots=True)
class Model:
    """Answers with whatever model serves. Made by `current`; may be used from several threads."""

    folder: Path
    threads: int
    loaded: Loaded
    seen: tuple[int, int]
    looked_s: float
    unfit: str = ""
    gone_s: float | None = None
    why: str = ""
    failed: int = 0
    proven: bool = False
    worker: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def current(cls, where: Path | str | None = None, threads: int = 1) -> Model:
        """Returns the model that serves. `where` is the agent's state_dir or its configuration; none: the usual one."""
        folder = models_folder(Path(where) if where is not None else DEFAULT_CONFIG)
        for _ in range(_TRIES):
            seen = _signature(folder)
            slot = _serving(folder)
            if slot is None:
                break
            try:
                return cls(folder, threads, _load(slot, threads), seen, time.monotonic())
            except StateError:
                time.sleep(_AGAIN_S)  # the agent is at work between the pointer and the file
            except WireError as exc:
                _note_facts(folder, slot.facts, exc.code, exc.message)
                raise
        outcome = load_outcome(folder)
        ended = f"; version {outcome.version} was {outcome.phase}: {outcome.code}, {outcome.reason}" * bool(
            outcome.code
        )
        raise StateError(f"no model serves in {folder}{ended}", remedy="offer one: bitfleet rollout start")

    def predict(self, x: Any) -> Array:
        """Returns the outputs for one example, or for many in rows; DataError for any other shape."""
        return self.answer(x).outputs

    def answer(self, x: Any) -> Answer:
        """Returns the outputs together with the version, the variant and the labels of the model that gave them."""
        self._follow_later()
        self._check_withdrawn()
        loaded = self.loaded
        rows, single = _rows(x, loaded.facts)
        found, facts = self._run(loaded, rows), loaded.facts
        outputs = found[0] if single else found
        return Answer(outputs, int(facts["version"]), str(facts["variant"]), tuple(facts["labels"]))

    def follow(self) -> bool:
        """Looks for a switch now and loads what serves; tells whether it is another model than before."""
        with self.lock:
            self.looked_s = time.monotonic()
            seen = _signature(self.folder)
            slot = None if seen == self.seen else _serving(self.folder)
            digest = str(slot.facts["digest"]) if slot else ""
            emptied = seen != self.seen and slot is None and read_pointer(self.folder) is not None
            if (seen == _MISSING or emptied) and self.gone_s is None and not _healthy(self.folder, self.loaded):
                self.gone_s = self.looked_s
            if slot is None or digest == self.unfit:
                self.seen = seen  # where the pointer is only damaged, the last model goes on
                return False
            if digest == self.loaded.facts["digest"]:
                self._serve(Loaded(slot.facts, self.loaded.session), seen)
                return False
            try:
                self._serve(_load(slot, self.threads), seen)
                return True
            except StateError:
                return False  # the agent is at work on it: the next look is soon
            except BitfleetError as exc:
                self.seen, self.unfit = seen, digest
                _note_facts(self.folder, slot.facts, exc.code, exc.message)
                return False

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns the names of the outputs."""
        return tuple(self.loaded.facts["labels"])

    @property
    def version(self) -> int:
        """Returns the version of the model that answers now."""
        return int(self.loaded.facts["version"])

    @property
    def variant(self) -> str:
        """Returns the variant of the model that answers now."""
        return str(self.loaded.facts["variant"])

    @property
    def input(self) -> tuple[int, ...]:
        """Returns the shape of one example."""
        return tuple(self.loaded.facts["input"])

    def _follow_later(self) -> None:
        """Starts a look in the background, at most twice a second and one at a time."""
        now_s = time.monotonic()
        if now_s - self.looked_s < _LOOK_S or (self.worker and self.worker.is_alive()):
            return
        self.looked_s = now_s
        if _signature(self.folder) != self.seen:
            self.worker = threading.Thread(target=self.follow, name="bitfleet-model", daemon=True)
            self.worker.start()

    def _serve(self, loaded: Loaded, seen: tuple[int, int]) -> None:
        if loaded.facts["digest"] != self.loaded.facts["digest"]:
            self.failed, self.proven = 0, False
        self.loaded, self.seen, self.unfit, self.gone_s, self.why = loaded, seen, "", None, ""

    def _check_withdrawn(self) -> None:
        """Raises StateError if the model was withdrawn a while ago and none has taken its place since."""
        if self.gone_s is None or time.monotonic() - self.gone_s < _GRACE_S:
            return
        self.follow()
        if self.gone_s is None:
            return
        facts = self.loaded.facts
        self.why = self.why or _ending(self.folder, facts)  # the next offer's end will take its place on the disk
        raise StateError(
            f"model {facts['version']} ({facts['variant']}) was withdrawn, {self.why}; none serves in {self.folder}",
            remedy="roll out one that works: bitfleet rollout start",
        )

    def _run(self, loaded: Loaded, rows: Array) -> Array:
        import numpy as np  # noqa: PLC0415

        try:
            found: Array = run_rows(loaded.session, rows)
        except Exception as exc:  # the runtime's errors share no root
            reason = f"{type(exc).__name__}: {exc}"
            self._fail(loaded, rows, "E-MODEL-LOAD", reason)
            raise WireError(f"model {loaded.facts['version']} failed: {reason}", code="E-MODEL-LOAD") from exc
        if not np.isfinite(found).all():
            self._fail(loaded, rows, "E-MODEL-NAN", "an answer is not finite")
            raise WireError(f"model {loaded.facts['version']} gave an answer that is not finite", code="E-MODEL-NAN")
        if loaded.session is self.loaded.session:
            self.failed, self.proven = 0, True
        return found

    def _fail(self, loaded: Loaded, rows: Array, code: str, reason: str) -> None:
        """Notes failures that are the model's and not a reading's: many in a row, or a little the first answer of all.

        An application that ends at an error and is started again has first answers only.
        """
        weight = 0
        if float(abs(rows).max()) <= _ABSURD and loaded.session is self.loaded.session:
            self.failed += 1
            weight = ENOUGH if self.failed >= _IN_A_ROW else int(self.failed == 1 and not self.proven)
        _note_facts(self.folder, loaded.facts, code, reason, weight)


def models_folder(where: Path) -> Path:
    """Returns the folder of models of a state_dir, or of the agent that a configuration is for."""
    state_dir = where if where.is_dir() else load_config(where).state_dir
    return state_dir / "models"


def _signature(folder: Path) -> tuple[int, int]:
    try:
        facts = (folder / POINTER).stat()
    except FileNotFoundError:
        return _MISSING
    except OSError:
        return _UNREADABLE
    return facts.st_ino, facts.st_mtime_ns


def _serving(folder: Path) -> Slot | None:
    pointer = read_pointer(folder)
    return read_slot(folder, pointer.serving) if pointer else None


def _healthy(folder: Path, loaded: Loaded) -> bool:
    """Tells whether the model proved itself here: then only the pointer is lost, and the agent makes it anew."""
    held = [slot for slot in (read_slot(folder, name) for name in ("a", "b")) if slot]
    return any(slot.healthy and slot.facts["digest"] == loaded.facts["digest"] for slot in held)


def _ending(folder: Path, facts: Mapping[str, Any]) -> str:
    """Returns in words why a model serves no more."""
    outcome = load_outcome(folder)
    if outcome.manifest == facts["manifest"] and outcome.code:
        return f"{outcome.code}: {outcome.reason}"
    return "and nothing says why: see the agent's log"


def _load(slot: Slot, threads: int) -> Loaded:
    """Returns a slot's model in memory; StateError if its file does not hold what the facts say."""
    try:
        data = slot.path.read_bytes()
    except OSError as exc:
        raise StateError(f"{slot.path} cannot be read: {exc.strerror}") from exc
    if hashlib.sha256(data).hexdigest() != slot.facts["digest"]:
        raise StateError(f"{slot.path} holds other bytes than its facts say", remedy="restart the agent")
    return Loaded(slot.facts, open_session(data, slot.facts.get("options", {}), threads))


def _rows(x: Any, facts: Mapping[str, Any]) -> tuple[Array, bool]:
    """Returns the examples in rows as float32, and whether there was only one, without a row of its own."""
    import numpy as np  # noqa: PLC0415

    shape = tuple(facts["input"])
    values = np.asarray(x)
    single = values.shape == shape
    if not single and (values.shape[1:] != shape or not len(values)):
        raise DataError(f"input of shape {values.shape}", remedy=f"give {shape}, or rows of that shape")
    if values.dtype.kind not in "fiub":
        raise DataError(f"input of type {values.dtype}", remedy="give numbers")
    rows = np.ascontiguousarray(values[None] if single else values, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise DataError("the input holds values that are not finite as float32", remedy="repair or leave them out")
    return rows, single


def _note_facts(folder: Path, facts: Mapping[str, Any], code: str, reason: str, weight: int = ENOUGH) -> None:
    """Tells the agent, where this process may write to its folder; in the log it stands in any case."""
    log_event("model-failed", version=facts["version"], variant=facts["variant"], code=code, reason=reason)
    try:
        if weight:
            note_failure(folder, str(facts["digest"]), code, reason, weight)
    except OSError as exc:
        log_event("model-failure-unnoted", reason=exc.strerror)
