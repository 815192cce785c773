"""What the agent does about models: takes an offer, has it installed, watches it, and says where it stands.

The agent calls these hooks and knows nothing else of it. Nothing is made on the disk before the first offer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.fetch import ask_for
from edge_agent.gate import disk_failure, free_memory_bytes
from edge_agent.serving.accept import accept_offer
from edge_agent.serving.health import Watch
from edge_agent.serving.install import Installation, Means
from edge_agent.serving.outcome import PASSING, Books, model_report, refusal
from edge_agent.serving.probe import Probe
from edge_agent.serving.trial.barred import is_barred
from edge_agent.serving.trial.ending import Trial, on_trial
from edge_agent.serving.trial.measuring import WISH, leave_answer, take_wish
from edge_agent.serving.trial.placing import place, serve_again, serve_on_trial
from edge_agent.serving.trial.shortage import is_news
from wire.errors import BitfleetError
from wire.events import log_event
from wire.messages.rollout import ModelReport, Offer, encode_model_report
from wire.pieces.chunks import Chunk
from wire.topics import Topics
from wire.transport import Transport

__all__ = ["FOLDER", "Serving"]

FOLDER = "models"
_AGAIN_S, _NEVER_S = 600.0, float("inf")
_REST_S, _WISHES_S = 10.0, 10.0  # after trouble that no installation ends with; so often a person's wish is looked for


@dataclass
class Serving:
    """One device's models. `wall_s` is the time of day, for expiry only; `fetched_bytes` came for offers that ended.

    After trouble that no installation ended with, as a full disk while one is on trial, nothing is done until `rest_s`.
    """

    config: AgentConfig
    transport: Transport
    clock: Callable[[], float]
    wall_s: Callable[[], float] = time.time
    free_memory_bytes: Callable[[], int | None] = free_memory_bytes
    folder: Path = field(init=False)
    probe: Probe = field(init=False)
    books: Books = field(init=False)
    offer: Offer | None = None
    installation: Installation | None = None
    trial: Trial | None = None
    said: ModelReport | None = None
    again_s: float = _NEVER_S
    rest_s: float = float("-inf")
    training: bool = False
    online: bool = False
    alive: bool = False
    fetched_bytes: int = 0

    def __post_init__(self) -> None:
        self.folder = self.config.state_dir / FOLDER
        self.probe = Probe(self.config.train.nice)
        self.books = Books(self.config, self.folder)
        if self.folder.exists():
            self._wake_up()

    @property
    def watch(self) -> Watch | None:
        """Returns what watches the model on trial, if there is one."""
        return self.trial.watch if self.trial else None

    def topic(self, leaf: str) -> str:
        """Returns one of this device's topics."""
        return Topics(self.config.fleet).device(self.config.device, leaf)

    def greet(self) -> None:
        """A new link: offers are asked for, and what was said is said again."""
        self.online = True
        self.transport.subscribe(self.topic("offer"))
        self.ask_again()

    def cut(self) -> None:
        """The link is gone, and with it what was on its way."""
        self.online = False
        if self.installation and self.installation.fetch:
            self.installation.fetch.cut()

    def ask_again(self) -> None:
        """Asks for what is missing, and forgets what was said: the other side may be a new one."""
        self.said = None
        self._fetch_more()

    def take_offer(self, payload: bytes) -> None:
        """Begins with what is offered, unless it is here already or was settled; empty withdraws it."""
        if not payload:
            self._withdraw()
            return
        offer = accept_offer(payload, self.config)
        if self.installation and (self.installation.offer.manifest == offer.manifest or self._staged):
            self.offer = offer
            return
        self._drop_installation("another offer came: say bench again")
        self.offer, self.again_s, self.books.weighed = offer, _NEVER_S, ()

    def take(self, chunk: Chunk) -> None:
        """Takes a piece of a blob, if it is one of ours."""
        if self.installation and self.installation.fetch:
            try:
                self.installation.fetch.take(chunk, self.clock())
            except BitfleetError as exc:
                self._refuse(exc)

    def step(self, now_s: float, training: bool) -> None:
        """Does whatever is due; training goes before probing."""
        if not self.alive and self.offer is None:
            return
        self.training = training
        try:
            if now_s >= self.rest_s:
                self._advance(now_s, training)
        except (BitfleetError, OSError) as exc:
            self._refuse(exc)
        self._say()

    def due_s(self, now_s: float) -> float:
        """Returns how long nothing is to be done here."""
        wait_s = min(_WISHES_S if self.offer else float("inf"), self.again_s - now_s)
        if self.trial is not None:
            wait_s = self.trial.due_s(now_s, self.training)
        elif self.installation is not None:
            wait_s = self.installation.due_s(now_s, self.training, self.online)
        return max(0.0, wait_s, self.rest_s - now_s)

    @property
    def report(self) -> ModelReport:
        """Returns where the device stands."""
        under_way = (None if self.books.shelf.pinned else self.installation) or self.trial
        return model_report(self.books.shelf, self.books.outcome, under_way.report if under_way else None)

    @property
    def _staged(self) -> bool:
        return self.installation is not None and self.installation.phase == "staged"

    @property
    def _means(self) -> Means:
        return Means(self.config, self.folder, self.probe, self.wall_s, self.free_memory_bytes)

    def _wake_up(self) -> None:
        """Makes the folder, and goes on with what was being tried."""
        (self.folder / "store").mkdir(parents=True, exist_ok=True)
        self.books.start()
        self.alive = True
        self._watch_if_trying(self.clock())

    def _watch_if_trying(self, now_s: float) -> None:
        self.books.look()
        pointer, slot = self.books.shelf.pointer, self.books.shelf.serving
        if pointer and pointer.trying and slot:
            self.trial = Trial(Watch(self._means, slot, now_s + self.config.model.health_s))

    def _advance(self, now_s: float, training: bool) -> None:
        if not self.alive:
            self._wake_up()
        self.books.look()
        if self.trial and not on_trial(self.books.shelf, self.trial.slot):
            self._leave_trial()
        if self.trial is None and self.installation is None:
            self._watch_if_trying(now_s)  # the disk may have taken a switch and not what was to follow
        if self.trial is not None:
            self._go_on_watching(self.trial, now_s, training)
        elif self.installation is not None:
            self._go_on_installing(self.installation, now_s, training)
        elif self.offer and (self.folder / WISH).exists():
            self._begin(self.offer)
        elif self.offer and (self.books.unsettled(self.offer) if self.again_s == _NEVER_S else now_s >= self.again_s):
            self._consider(self.offer)

    def _consider(self, offer: Offer) -> None:
        """Begins with an offer, unless there is nothing to do about it, it was rolled back here, or is here already."""
        self.again_s = _NEVER_S
        if self.books.settled(offer):
            return
        if is_barred(self.folder, offer.manifest):
            self.books.end_barred(offer)
        elif self.books.proved(offer) and (slot := serve_again(self.folder, offer.manifest, self.config.durable)):
            self.books.end_slot(slot, "healthy")
        else:
            self._begin(offer)

    def _begin(self, offer: Offer) -> None:
        self.again_s, asked = _NEVER_S, take_wish(self.folder)
        self.installation = one = Installation(offer, self._means, asked, self.books.needed(self._means.store))
        log_event("offer", rollout=offer.rollout, version=offer.version, manifest=offer.manifest[:12])
        one.begin()
        self._fetch_more()
        if one.fetch is None:  # what ends at once was never under way
            self._go_on_installing(one, self.clock(), self.training)

    def _fetch_more(self) -> None:
        fetch = self.installation.fetch if self.installation else None
        if fetch and self.online and not fetch.complete:
            ask_for(fetch, self.transport, Topics(self.config.fleet), self.config.device, self.clock())

    def _go_on_installing(self, one: Installation, now_s: float, training: bool) -> None:
        if self.books.shelf.pinned and not one.all_of_them:
            self._drop_installation()
            return
        if self._staged:
            serve_on_trial(one)
            self._drop_installation()
            self._watch_if_trying(now_s)
            return
        before = one.fetch
        one.step(now_s, training)
        if one.ready:
            self._stage(one)
        elif one.fetch is not None and (one.fetch is not before or one.fetch.overdue_s(now_s) <= 0):
            self._fetch_more()

    def _stage(self, one: Installation) -> None:
        """Fills the other slot; what serves already, or was only to be measured, needs none."""
        what = "measured" if self.books.shelf.pinned else place(one, self.books.shelf)
        if what in ("measured", "serves", "barred"):
            self._drop_installation()
            self.books.tidy(self._means.store, self.offer)
        self.books.end_placed(one.offer, what, one.choice.found if one.choice else ())

    def _go_on_watching(self, trial: Trial, now_s: float, training: bool) -> None:
        verdict = trial.step(now_s, training)
        if verdict is None:
            return
        self.books.tidy(self._means.store, self.offer)  # on a full disk that makes room for the pointer
        if not trial.write_down(self.folder, verdict, self.config.durable):
            self._leave_trial()
            return
        self.trial = None
        self.books.end_slot(trial.slot, "rolled-back" if verdict.code else "healthy", verdict.code, verdict.reason)
        self.books.tidy(self._means.store, self.offer)  # now what served before may go
        self._say()
        if verdict.code in PASSING and self.offer and self.offer.manifest == trial.slot.facts["manifest"]:
            self.again_s = now_s + _AGAIN_S
        elif self.offer:
            self._consider(self.offer)  # it came while the other was watched

    def _leave_trial(self) -> None:
        """A person put another model there, or said that it stays."""
        self.probe.stop()
        self.trial = None

    def _refuse(self, why: BitfleetError | OSError) -> None:
        """Ends the installation with a code; what the disk or the network did is tried again later."""
        exc = disk_failure(why) if isinstance(why, OSError) else why
        one, fault = self.installation, refusal(exc)
        self.probe.stop()
        if one is None:
            self.rest_s = self.clock() + (_REST_S if self.alive else _AGAIN_S)
            if self.trial:
                self.trial.trouble = fault
            elif self.offer and not self.alive:
                self.books.end(self.offer.manifest, self.offer.version, "refused", fault)
            log_event("model-trouble", code=exc.code, reason=exc.message)
            return
        self._drop_installation(f"{exc.code}: {fault[1]}")
        if not self.books.shelf.pinned:  # what was only measured changes nothing
            found = one.choice.found if one.choice else ()
            self.books.end(one.offer.manifest, one.offer.version, "refused", fault, found)
            self.again_s = self.clock() + _AGAIN_S if exc.code in PASSING and self.offer else self.again_s
        self.books.tidy(self._means.store, self.offer)

    def _drop_installation(self, why: str = "") -> None:
        one, self.installation = self.installation, None
        if one is not None:
            if one.all_of_them:
                leave_answer(self.folder, one.offer.version, why or (one.choice.why if one.choice else ""), one.choice)
            self.fetched_bytes += one.fetched_bytes
            self.probe.stop()
            if one.asked and self.online:
                self.transport.unsubscribe(*(Topics(self.config.fleet).blob(digest) for digest in one.asked))

    def _withdraw(self) -> None:
        self.offer, self.again_s = None, _NEVER_S
        if self.installation is not None and not self._staged:
            log_event("offer-withdrawn", version=self.installation.offer.version)
            self._drop_installation("the offer was withdrawn")

    def _say(self) -> None:
        report = self.report
        if self.online and is_news(report, self.said) and (report.phase != "none" or self.said is not None):
            self.said = report
            self.transport.publish(self.topic("model"), encode_model_report(report), retain=True)
