"""Where one roll-out is conducted, over or not: reads what comes, and moves the roll-out on as far as it goes.

Every move is in the database before anybody is told of it; a new desk over the same home goes on where the old one
ended. Offers are retained, and are said again over every new link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from coordinator.home import Home
from coordinator.library import Library
from coordinator.post import Post, Source
from coordinator.rollout.book import Published, RolloutBook
from coordinator.rollout.publish import blobs_of, load_manifest
from coordinator.rollout.stages import STAGES, Member, Rollout, begun, hear, obey, proceed, rested
from coordinator.state.allowance import Allowance, admits
from coordinator.state.registry import Registry
from wire.errors import StateError, WireError
from wire.events import log_event
from wire.messages.reports import decode_ask
from wire.messages.rollout import ModelReport, Offer, decode_model_report, encode_offer
from wire.transport import Event, Message, Sent, Unsent, Up

__all__ = ["RolloutDesk", "open_desk"]

_LOOK_S = 1.0
_MOST_REFUSALS = 20
_FORGIVEN_S = 3600.0
_RESTED_S = 86400.0


@dataclass
class RolloutDesk:
    """One roll-out over a link. `offer` is what every device is offered by its name, `blobs` what they may ask for.

    `said` are devices whose offer was published over this link, `telling` and `clearing` the messages of which the
    broker has not said yet that it took them: offers, and (roll-out, device) of what is withdrawn. `pinned` are reports
    of devices whose owner pinned a model: they say so once, before they are offered anything. `refusals` counts, for an
    hour and by topic, what was no message of a device, `asks` what it may ask. `heard` says that something came since
    `act` looked at all devices.
    """

    rollout: Rollout
    book: RolloutBook
    post: Post
    source: Source
    registry: Registry
    clock: Callable[[], float]
    sign: Callable[[bytes], bytes]
    offer: Offer
    blobs: frozenset[str]
    said: set[str] = field(default_factory=set)
    telling: dict[int, str] = field(default_factory=dict)
    clearing: dict[int, tuple[str, str]] = field(default_factory=dict)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    asks: Allowance = field(default_factory=Allowance)
    pinned: dict[str, ModelReport] = field(default_factory=dict)
    looked_s: float = float("-inf")
    forgave_s: float = float("-inf")
    rested_s: float = float("-inf")
    heard: bool = False

    def handle(self, event: Event) -> None:
        """Reads an event that the post has noted."""
        if isinstance(event, Message):
            self.heard = True
            self._read(event)
        elif isinstance(event, Up):
            self._begin_link()
        elif isinstance(event, Sent | Unsent):
            self._answered(event)

    def act(self) -> None:
        """Does whatever is due, without waiting; to be called once a second at least."""
        now_s = self.clock()
        due = now_s - self.looked_s >= _LOOK_S
        if due:
            self._look_around(now_s)
        if due or self.heard:
            self.heard = False
            self._proceed()
            self._tell()
        self.post.send_pieces(self.source, now_s)

    def answers(self, message: Message) -> bool:
        """Tells whether a message is this roll-out's beside a run: a report, or a question for what it gives away."""
        device, leaf = self.post.topics.split(message.topic) or ("", "")
        if leaf != "ask" or not self._offered(device):
            return leaf == "model"
        try:
            ask = decode_ask(message.payload)
        except WireError:
            return False
        return ask.what == "blob" and ask.digest in self.blobs

    def _proceed(self) -> None:
        self._move(proceed(self.rollout, self.clock()))
        for device, report in self.pinned.items():
            self._move(hear(self.rollout, device, report))

    def _read(self, message: Message) -> None:
        """Takes one message; nothing that it holds raises."""
        place = self.post.topics.split(message.topic)
        if place is None or not message.payload:
            return
        device, leaf = place
        if not message.retained:
            self.source.accounts.heard(device, message.topic, len(message.payload))
        if self.refusals[device, leaf] >= _MOST_REFUSALS:
            return
        try:
            if leaf == "model":
                self._heard_model(device, message.payload)
            elif leaf == "ask":
                self._asked(device, message.payload)
            else:
                self.registry.hear(device, leaf, message.payload)
        except WireError as exc:
            self.refusals[device, leaf] += 1
            log_event("refused", device=device, topic=leaf, code=exc.code, reason=exc.message)

    def _heard_model(self, device: str, payload: bytes) -> None:
        report = decode_model_report(payload)
        self.pinned.pop(device, None)
        if report.phase == "pinned" and any(member.device == device for member in self.rollout.members):
            self.pinned[device] = report
        self._move(hear(self.rollout, device, report))

    def _asked(self, device: str, payload: bytes) -> None:
        """Serves blobs of this roll-out to devices that it was offered to; every other question waits for a run."""
        if not admits(self.asks, device, payload, self.clock()):
            return
        ask = decode_ask(payload)
        if ask.what != "blob" or ask.digest not in self.blobs or not self._offered(device):
            return
        library = self.source.library
        if not (library.folder / ask.digest).is_file():  # no fault of the device
            raise StateError(f"blob {ask.digest} is not there any more", remedy="publish the export again")
        if not library.ask(ask.digest, ask.spans, device, self.clock(), ask.piece_bytes):
            raise WireError(f"blob {ask.digest[:12]} has no such bytes", code="E-BLOB")

    def _offered(self, device: str) -> bool:
        """Tells whether a device has the offer; one that was withdrawn counts no more."""
        return any(member.device == device and self._open(member) for member in self.rollout.members)

    def _open(self, member: Member) -> bool:
        kept = not self.rollout.over or self.rollout.status == "done" or begun(member, self.rollout.version)
        return member.stage >= 0 and kept

    def _look_around(self, now_s: float) -> None:
        """Reads what another process wishes, and clears what the broker should keep no more."""
        self.looked_s = now_s
        if now_s - self.forgave_s >= _FORGIVEN_S:  # a device that was mended since is heard again
            if any(leaf == "model" and count for (_, leaf), count in self.refusals.items()):
                self.post.listen("model")  # a last word that was not listened to is kept by the broker
            self.refusals.clear()
            self.forgave_s = now_s
        if now_s - self.rested_s >= _RESTED_S:  # only in memory: a line for each device each day would say nothing
            self.rollout, self.rested_s = rested(self.rollout), now_s
        wish = self.book.pending_wish(self.rollout.name)
        if wish:
            log_event("wish", rollout=self.rollout.name, wish=wish)
            self._move(obey(self.rollout, wish, now_s), wish)
        if self.post.online:
            self._withdraw()

    def _move(self, after: Rollout, wish: str = "") -> None:
        """Books a move and then makes it."""
        before = self.rollout
        if after == before and not wish:
            return
        turned = (after.status, after.stage) != (before.status, before.stage)
        with self.book.database.change():
            self.registry.save()
            self.book.save(before, after)
            if wish:
                self.book.granted(after.name, wish)
            self.book.traffic(after.name, *self.source.accounts.take())
        self.rollout = after
        self.looked_s = float("-inf") if turned else self.looked_s
        _log(before, after)

    def _tell(self) -> None:
        """Makes the offers that are out, each once over a link."""
        for member in self.rollout.members if self.post.online else ():
            if self._open(member) and not member.outcome and member.device not in self.said:
                offer = encode_offer(replace(self.offer, device=member.device), self.sign)
                token = self.post.say(self.source, member.device, "offer", offer, retain=True)
                if token is not None:
                    self.said.add(member.device)
                    self.telling[token] = member.device

    def _withdraw(self) -> None:
        """Takes back what is not to be had any more: from devices that had not begun when a roll-out ended."""
        for name, device in self.book.withdrawals(self.post.topics.fleet):
            if (name, device) not in self.clearing.values():
                token = self.post.say(self.source, device, "offer", b"", retain=True)
                if token is not None:
                    self.clearing[token] = name, device

    def _answered(self, event: Sent | Unsent) -> None:
        """What the broker did not take is said again; an offer is withdrawn when it has taken the empty message."""
        device, cleared = self.telling.pop(event.token, ""), self.clearing.pop(event.token, None)
        if isinstance(event, Unsent):
            self.said.discard(device)
            self.heard = True
        elif cleared is not None:
            with self.book.database.change():
                self.book.withdrawn(*cleared)

    def _begin_link(self) -> None:
        self.said.clear()
        self.telling.clear()
        self.clearing.clear()
        self.looked_s = float("-inf")


def open_desk(home: Home, name: str, post: Post, registry: Registry, clock: Callable[[], float]) -> RolloutDesk:
    """Returns the desk of a roll-out, ready to go on from wherever it stands."""
    book = RolloutBook(home.database)
    rollout = book.load(name)
    at = book.published(rollout.version)
    return RolloutDesk(
        rollout=replace(rollout, since_s=clock()),
        book=book,
        post=post,
        source=Source(Library(home.shelf, durable=home.durable)),
        registry=registry,
        clock=clock,
        sign=home.sign,
        offer=Offer(name, at.digest, at.size, rollout.version, device=""),
        blobs=_blobs(home, book, rollout, at),
    )


def _blobs(home: Home, book: RolloutBook, rollout: Rollout, at: Published) -> frozenset[str]:
    """Returns what devices may ask for; a damaged shelf must not keep a person from ending a roll-out."""
    try:
        return frozenset({at.digest, *blobs_of(load_manifest(home.shelf, at))})
    except StateError:
        if book.pending_wish(rollout.name) == "abort" or book.withdrawals(book.fleet(rollout.name)):
            return frozenset()
        raise


def _log(before: Rollout, after: Rollout) -> None:
    """Writes a line for every change that a person may want to see."""
    if (before.status, before.stage) != (after.status, after.stage):
        stage = STAGES[after.stage]
        log_event("rollout", name=after.name, status=after.status, stage=stage, reason=after.reason or "none")
    for old, new in zip(before.members, after.members, strict=True):
        if _end_of(old) != _end_of(new):
            report = new.report or ModelReport()
            outcome = new.outcome or ("late" if new.late else "offered")
            facts = {"phase": report.phase, "variant": report.variant or "none", "code": report.code or "none"}
            log_event("device-model", device=new.device, outcome=outcome, **facts)


def _end_of(member: Member) -> tuple[int, str, bool, bool]:
    went_back = member.report is not None and member.report.phase == "rolled-back"
    return member.stage, member.outcome, member.late, went_back
