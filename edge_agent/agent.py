"""The resident: takes plans, has them worked on, carries updates up, and keeps saying what it does.

`step` waits for one event and then does whatever is due. Nothing here blocks, and nothing is remembered only here:
the outbox and the standing are on disk, the plan is retained by the broker and repeated by the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.fetch import ask_for
from edge_agent.gate import Readings, check_gate, disk_failure, read_board
from edge_agent.info import device_info, present_state
from edge_agent.kept.folders import open_folders
from edge_agent.kept.memory import MEMORY, settle_memory
from edge_agent.kept.outbox import Entry, entries, left_behind, remove
from edge_agent.kept.standing import Standing, load_standing, save_standing
from edge_agent.presence import Presence
from edge_agent.serving.offers import Serving
from edge_agent.upload import Upload
from edge_agent.work import Work
from edge_agent.worker import Worker
from wire.errors import BitfleetError, Declined
from wire.events import log_event
from wire.frame import Kind
from wire.messages.plan import read_plan
from wire.messages.reports import Ask, DeviceState, decode_state, encode_ask, encode_state, read_receipt
from wire.pieces.chunks import decode_chunk
from wire.sign import open_signed
from wire.topics import Topics
from wire.transport import Down, Event, Message, Sent, Transport, Unsent, Up

__all__ = ["Agent"]

_SPOILED = frozenset({"E-MAGNITUDE", "E-NONFINITE"})
_LONGEST_WAIT_S = 30.0
_LARGEST_BLOB_BYTES = 1 << 32


@dataclass
class Agent:
    """One device. `spread` gives jitter in [0, 1), `board` reads the sensors, `store` keeps specs, blobs and models."""

    config: AgentConfig
    transport: Transport
    worker: Worker
    clock: Callable[[], float]
    spread: Callable[[], float]
    board: Callable[[], Readings] | None = None
    topics: Topics = field(init=False)
    store: Path = field(init=False)
    outbox: Path = field(init=False)
    standing: Standing = field(init=False)
    uploads: dict[str, Upload] = field(default_factory=dict)
    work: Work | None = None
    online: bool = False
    payload_bytes: int = 64 * 1024
    coordinator_away: bool = False
    presence: Presence = field(default_factory=Presence)
    serving: Serving = field(init=False)
    trouble: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        self.topics = Topics(self.config.fleet)
        self.store, self.outbox = open_folders(self.config.state_dir)
        self.standing = load_standing(self.config.state_dir).started()
        save_standing(self.config.state_dir, self.standing, self.config.durable)
        self.serving = Serving(self.config, self.transport, self.clock)
        for entry in entries(self.outbox):
            self._carry(entry)

    @property
    def _upload(self) -> Upload | None:
        """Returns the oldest: one after the other, since the coordinator keeps one unfinished update of a device."""
        return next(iter(self.uploads.values()), None)

    def step(self, longest_s: float = _LONGEST_WAIT_S) -> bool:
        """Waits for an event at most until something is due, and acts; tells whether there was an event."""
        event = self.transport.receive(min(longest_s, self._due_s()), (*self.worker.wake, *self.serving.probe.wake))
        if event is not None:
            self._handle(event)
        now_s = self.clock()
        self._advance_work(now_s)
        self.serving.step(now_s, self.work is not None and self.work.training)
        if self.online:
            self._go_on_uploading(now_s)
            self.presence.say(self.transport, self.topic("state"), self.state, now_s)
        return event is not None

    def stop(self) -> None:
        """Ends the child and says goodbye."""
        self.worker.stop()
        self.serving.probe.stop()
        gone = encode_state(DeviceState("disconnected", self.standing.session))
        self.transport.close(Message(self.topic("state"), gone))

    def topic(self, leaf: str) -> str:
        """Returns one of this device's topics."""
        return self.topics.device(self.config.device, leaf)

    @property
    def state(self) -> DeviceState:
        """Returns what the device does now."""
        return present_state(self.standing.session, self.trouble, self.work, self._upload)

    def _handle(self, event: Event) -> None:
        now_s = self.clock()
        if isinstance(event, Message):
            self._read(event, now_s)
        elif isinstance(event, Up):
            self._greet(event)
        elif isinstance(event, Down):
            self.online = False
            log_event("link-down", reason=event.reason)
            fetch = (self.work.fetch,) if self.work and self.work.fetch else ()
            for moving in (*self.uploads.values(), *fetch, self.serving):
                moving.cut()
        elif isinstance(event, Sent):
            any(upload.sent(event.token, now_s) for upload in self.uploads.values())
        elif isinstance(event, Unsent):
            log_event("unsent", topic=event.topic, code=hex(event.code), reason=event.reason)
            any(upload.unsent(event.token, now_s) for upload in self.uploads.values())

    def _greet(self, event: Up) -> None:
        """A new link: what is retained is published again; what is open is asked for when the coordinator is seen."""
        self.online, self.presence.said, self.payload_bytes = True, None, event.payload_bytes
        self.transport.subscribe(self.topic("plan"), self.topic("rcpt"), self.topics.coordinator)
        self.serving.greet()
        self.transport.publish(self.topic("info"), device_info(self.config), retain=True)
        self.presence.say(self.transport, self.topic("state"), self.state, self.clock())
        log_event("link-up", payload_bytes=event.payload_bytes)

    def _read(self, message: Message, now_s: float) -> None:
        try:
            if message.topic == self.topic("plan"):
                self._invite(message.payload, message.retained, now_s)
            elif message.topic == self.topic("rcpt"):
                self._settle(message.payload, now_s)
            elif message.topic == self.topics.coordinator:
                self._notice(decode_state(message.payload))
            elif message.topic == self.topic("offer"):
                self.serving.take_offer(message.payload)
            else:
                chunk = decode_chunk(message.payload, _LARGEST_BLOB_BYTES)
                self.serving.take(chunk)
                if self.work and self.work.fetch:
                    self.work.fetch.take(chunk, now_s)
        except Declined as exc:
            if self.work:
                self._decline(self.work.plan.run, self.work.plan.round, exc)
        except (BitfleetError, OSError) as exc:
            fault = self._note(exc)
            log_event("bad-message", topic=message.topic, code=fault.code, reason=fault.message)

    def _note(self, exc: BitfleetError | OSError) -> BitfleetError:
        """Returns what went wrong, which the state tells from here on; the disk's own failures have codes, too."""
        fault = disk_failure(exc) if isinstance(exc, OSError) else exc
        self.trouble = (fault.code, fault.message)
        return fault

    def _notice(self, state: DeviceState) -> None:
        """The coordinator is there, or there again: it may have lost pieces and states, so it is told and asked."""
        self.coordinator_away = state.state in ("lost", "disconnected")
        if state.state != "ready":
            return
        self.presence.said = None
        self._ask_about_upload(self.clock())
        self._fetch_more(self.clock())
        self.serving.ask_again()

    def _invite(self, payload: bytes, kept: bool, now_s: float) -> None:
        if not payload:
            self._drop_work("withdrawn")
            self._ask_about_upload(now_s)
            return
        plan = read_plan(open_signed(payload, Kind.PLAN, self.config.coordinator_key))
        if self.work and (self.work.plan.run, self.work.plan.round) == (plan.run, plan.round):
            return
        waiting = [(upload.entry.run, upload.entry.round) for upload in self.uploads.values()]
        if self.standing.settled(plan.run, plan.round) or (plan.run, plan.round) in waiting:
            self._ask(*self.standing.objections(plan.run, plan.round, waiting, kept))
            return  # a broker that was restored may repeat an old plan, which ends no work
        self._drop_work("replaced")
        self._ask_about_upload(now_s)
        try:
            check_gate(plan, self.config, self.board() if self.board else read_board(self.config.state_dir))
            self.work = Work.begin(plan, payload, self.store, now_s)
        except (BitfleetError, OSError) as exc:
            self._decline(plan.run, plan.round, exc)
            return
        self.trouble = ("", "")
        log_event("plan", run=plan.run, round=plan.round, base=plan.base[:12])
        self._fetch_more(now_s)

    def _fetch_more(self, now_s: float) -> None:
        fetch = self.work.fetch if self.work else None
        if fetch and self.online and not fetch.complete:
            ask_for(fetch, self.transport, self.topics, self.config.device, now_s)

    def _ask_about_upload(self, now_s: float) -> None:
        """Asks what became of the oldest update: of a round that is over, not one more piece need go up."""
        if self._upload:
            self._ask(self._upload.question(now_s))

    def _decline(self, run: str, number: int, fault: BitfleetError | OSError) -> None:
        exc = self._note(fault)
        reason = str(exc).removeprefix(f"{exc.code}: ")[:400]
        self._drop_work("declined")
        self._ask(Ask("decline", run=run, round=number, code=exc.code, reason=reason))
        log_event("declined", run=run, round=number, code=exc.code, reason=exc.message)

    def _drop_work(self, why: str) -> None:
        work, self.work = self.work, None
        if work is None:
            return
        log_event("work-dropped", run=work.plan.run, round=work.plan.round, why=why)
        if work.training:
            self.worker.stop()
        work.forget_topics(self.transport, self.topics)
        with suppress(OSError):  # an update may have been finished before its result was heard; else a start finds it
            if work.tries and (entry := left_behind(self.outbox, work.plan.run, work.plan.round)):
                self._carry(entry)

    def _settle(self, payload: bytes, now_s: float) -> None:
        receipt = read_receipt(open_signed(payload, Kind.RECEIPT, self.config.coordinator_key))
        if (upload := self.uploads.get(receipt.digest)) is None:
            return
        if receipt.verdict == "missing":
            upload.resume(receipt.spans or ((0, upload.entry.size),), now_s)
            return
        entry = upload.entry
        fate = "spoiled" if receipt.code in _SPOILED else receipt.verdict
        settle_memory(self.config.state_dir / MEMORY, entry.run, entry.round, fate)
        self.standing = self.standing.settle(entry.run, entry.round)  # a refusal names the open round
        save_standing(self.config.state_dir, self.standing, self.config.durable)
        remove(entry)
        del self.uploads[receipt.digest]
        self.trouble = (receipt.code, receipt.reason)
        log_event("receipt", round=entry.round, digest=entry.digest[:12], said=receipt.code or receipt.verdict)

    def _carry(self, entry: Entry) -> Upload:
        return self.uploads.setdefault(entry.digest, Upload(entry, self.payload_bytes, self.spread))

    def _ask(self, *asks: Ask) -> None:
        for ask in asks if self.online else ():
            self.transport.publish(self.topic("ask"), encode_ask(ask))

    def _go_on_uploading(self, now_s: float) -> None:
        if (upload := self._upload) is None:
            return
        try:
            if upload.due:
                upload.send(self.transport, self.topic("up"), now_s)
            elif upload.overdue_s(now_s) <= 0 and not self.coordinator_away:
                self._ask(upload.question(now_s))
        except OSError as exc:
            log_event("outbox-unreadable", file=upload.entry.path.name, reason=self._note(exc).message)
            del self.uploads[upload.entry.digest]

    def _advance_work(self, now_s: float) -> None:
        result, work = self.worker.poll(now_s), self.work
        if work is None:
            return
        try:
            if result is not None:
                self._finish(work, work.finished(result, self.config.train.attempts), now_s)
            elif work.fetch and work.fetch.complete and work.follow_chain(self.store, now_s):
                self._fetch_more(now_s)
            elif work.fetch and work.fetch.complete and not work.waits_for(self.uploads.values()):
                work.forget_topics(self.transport, self.topics)
                work.start(self.worker, self.config, self.store, self.outbox)
            elif work.fetch and work.fetch.overdue_s(now_s) <= 0:
                work.check_deadline(now_s)
                self._fetch_more(now_s)
        except (BitfleetError, OSError) as exc:
            self._decline(work.plan.run, work.plan.round, exc)

    def _finish(self, work: Work, digest_size: tuple[str, int] | None, now_s: float) -> None:
        """The update is in the outbox: carry it up. None means that the job has to be started again."""
        if (found := left_behind(self.outbox, work.plan.run, work.plan.round, digest_size)) is None:
            work.restart(self.store, now_s)
            return
        self._ask_about_upload(now_s)
        self._carry(found).begin(now_s)
        self.work = None
        work.tidy(self.store)

    def _due_s(self) -> float:
        """Returns how long to wait at most; pieces that are due wait for the broker, not for the clock."""
        now_s, upload = self.clock(), self._upload
        due = [_LONGEST_WAIT_S, self.serving.due_s(now_s), self.presence.due_s(self.state, now_s)]
        if upload and not upload.due and not self.coordinator_away:
            due.append(upload.overdue_s(now_s))
        if self.work and self.work.fetch and not self.work.fetch.complete:
            due.append(self.work.fetch.overdue_s(now_s))
        return max(0.0, min(due if self.online else due[:2]))
