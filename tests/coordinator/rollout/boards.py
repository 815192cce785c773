"""Scripted devices, and a coordinator with a roll-out among them, over a broker in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.home import Home
from coordinator.host import Host, host_alone
from coordinator.recipe import Recipe
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.desk import RolloutDesk
from coordinator.rollout.publish import blobs_of
from coordinator.rollout.start import Request, start_rollout
from tests.coordinator.rollout.exports import make_export
from tests.coordinator.rollout.trainers import Trainers
from tests.memory_fleet import InlineEvaluator
from wire.frame import Kind, decode_frame
from wire.messages.blob import digest_bytes
from wire.messages.manifest import MANIFEST_BYTES, Manifest, read_manifest
from wire.messages.reports import Ask, encode_ask
from wire.messages.rollout import ModelReport, Offer, encode_model_report, read_offer
from wire.pieces.chunks import Spans, decode_chunk
from wire.sign import check_signature, open_signed, public_key
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport, Message, Transport, Up

__all__ = ["FLEET", "NOW_S", "Board", "Scene"]

FLEET, NOW_S = "test", 1_800_000_000
TOPICS = Topics(FLEET)
Steps = Callable[[int], list[ModelReport]]


def phases(*words: str, code: str = "") -> Steps:
    """Returns the reports of a device that goes through these phases with a version."""

    def steps(version: int) -> list[ModelReport]:
        said, report = [], ModelReport(offered=version, variant="int8-4", bits=4.0, why="best accuracy that fits")
        for word in words:
            reached = {
                "staged": ("staged",),
                "active": ("staged", "active"),
                "healthy": ("staged", "active", "healthy"),
            }
            report = replace(report, phase=word, **dict.fromkeys(reached.get(word, ()), version))
            if word in ("refused", "rolled-back"):
                report = replace(report, active=0, healthy=0, code=code, reason="so it says")
            said.append(report)
        return said

    return steps


SCRIPTS: dict[str, Steps] = {
    "healthy": phases("fetching", "checking", "staged", "active", "healthy"),
    "refusing": phases("fetching", "checking", "refused", code="E-MODEL-GOLDEN"),
    "unfit": phases("fetching", "refused", code="E-MODEL-POLICY"),
    "silent": phases(),
    "stuck": phases("fetching"),
    "rolling back": phases("fetching", "staged", "active", "rolled-back", code="E-MODEL-NAN"),
    "flapping": phases("staged", "active", "healthy", "rolled-back", "active", "healthy", code="E-MODEL-NAN"),
}


@dataclass
class Board:
    """A device that takes what it is offered, fetches all of it, and then says what its script has."""

    device: str
    script: str
    hub: Hub | None
    keys: tuple[str, str]
    transport: Transport | None = None
    offers: list[Offer | None] = field(default_factory=list)
    wanted: dict[str, bytearray] = field(default_factory=dict)
    spans: dict[str, Spans] = field(default_factory=dict)
    got: dict[str, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None
    said: list[ModelReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.transport is None:
            self.transport = MemoryTransport(self.hub, payload_bytes=2048)

    def step(self, wait_s: float = 0.0) -> bool:
        event = self.transport.receive(wait_s)
        if isinstance(event, Up):
            self.transport.subscribe(TOPICS.device(self.device, "offer"))
        elif isinstance(event, Message) and event.topic.endswith("/offer"):
            self._offered(event.payload)
        elif isinstance(event, Message):
            self._piece(event.payload)
        return event is not None

    def say(self, report: ModelReport) -> None:
        self.said.append(report)
        self.transport.publish(TOPICS.device(self.device, "model"), encode_model_report(report), retain=True)

    def _offered(self, payload: bytes) -> None:
        if not payload:
            self.offers.append(None)
            return
        offer = read_offer(open_signed(payload, Kind.OFFER, self.keys[0]))
        again = offer in self.offers
        self.offers.append(offer)
        if self.script == "silent":
            return
        if again and self.said:
            self.transport.publish(TOPICS.device(self.device, "model"), encode_model_report(self.said[-1]), retain=True)
        else:
            self._fetch(offer.manifest, offer.size)

    def _fetch(self, digest: str, size: int) -> None:
        self.transport.subscribe(TOPICS.blob(digest))
        self.wanted[digest], self.spans[digest] = bytearray(size), Spans(size)
        ask = Ask("blob", digest, spans=((0, size),))
        self.transport.publish(TOPICS.device(self.device, "ask"), encode_ask(ask))

    def _piece(self, payload: bytes) -> None:
        chunk = decode_chunk(payload, 1 << 20)
        if chunk.digest not in self.wanted or self.script == "stuck":
            return
        end = chunk.offset + len(chunk.data)
        self.wanted[chunk.digest][chunk.offset : end] = chunk.data
        self.spans[chunk.digest].add(chunk.offset, end)
        if self.spans[chunk.digest].complete:
            self._whole(chunk.digest, bytes(self.wanted.pop(chunk.digest)))

    def _whole(self, digest: str, data: bytes) -> None:
        assert digest_bytes(data) == digest
        self.got[digest] = data
        if self.manifest is None or digest == self.offers[-1].manifest:
            frame = decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES)
            check_signature(frame, self.keys[1])
            self.manifest = read_manifest(frame)
            self._fetch(self.manifest.golden, self.manifest.golden_bytes)
            variant = self.manifest.variants[1]
            self._fetch(variant.digest, variant.size)
        elif not self.wanted:
            for report in SCRIPTS[self.script](self.manifest.version):
                self.say(report)


@dataclass
class Scene:
    """A home, its export, and boards by script; time moves only when nobody has anything to do.

    With a recipe there is a run of other devices beside the roll-out, in the same process.
    """

    home: Home
    folder: Path
    scripts: dict[str, str]
    recipe: Recipe | None = None
    hub: Hub = field(default_factory=Hub)
    clock_s: float = 0.0
    boards: dict[str, Board] = field(init=False)
    trainers: Trainers | None = None
    host: Host | None = None
    name: str = ""

    def __post_init__(self) -> None:
        keys = self.home.public_key, public_key(self.home.model_key())
        self.boards = {name: Board(name, script, self.hub, keys) for name, script in self.scripts.items()}

    def start(self, **more: object) -> str:
        """Opens a roll-out of the export to all boards."""
        export = make_export(self.folder / "export")
        request = Request(**{"fleet": FLEET, "folder": export, "devices": tuple(self.boards), **more})
        self.name = start_rollout(self.home, request, NOW_S)
        return self.name

    @property
    def desk(self) -> RolloutDesk:
        """Where the roll-out is conducted; looked for once a second."""
        assert self.host.desk is not None, RolloutBook(self.home.database).fault(self.name)
        return self.host.desk

    def open(self) -> Host:
        """Gives the roll-out to a new process: the old one's link breaks."""
        if self.host is not None:
            self.host.post.transport.close()
        self.host = self.make_host(MemoryTransport(self.hub))
        return self.host

    def make_host(self, transport: Transport) -> Host:
        if self.recipe is None:
            return host_alone(self.home, FLEET, transport, lambda: self.clock_s)
        row = self.home.database.row("SELECT run FROM runs")
        run = row["run"] if row else self.home.new_run(self.recipe)
        if self.trainers is None:
            self.trainers = Trainers(MemoryTransport(self.hub), TOPICS, self.recipe, self.home.run_folder(run))
        federation = self.home.federation(run, FLEET, transport, InlineEvaluator(), lambda: self.clock_s)
        state = federation.state
        return Host(self.home, state.post, state.registry, state.clock, federation)

    @property
    def model(self) -> str:
        """The digest of the run's final model."""
        (status,) = self.home.database.rows("SELECT status FROM runs")
        assert status["status"] == "done"
        return self.host.run.state.planner.model_digest

    def turn(self) -> bool:
        others = [*self.boards.values(), *([self.trainers] if self.trainers else [])]
        busy = any([self.host.step(0.0), *(other.step() for other in others)])
        self.clock_s += 0.0 if busy else 0.05
        return busy

    def settle(self, seconds: float = 3.0) -> None:
        """Goes on until nothing has happened for a while."""
        ends_s = self.clock_s + seconds
        while self.clock_s < ends_s:
            if self.turn():
                ends_s = self.clock_s + seconds

    def finish(self, longest_s: float = 20_000.0) -> str:
        """Goes on until only a person could do more; returns how it stands."""
        ends_s = self.clock_s + longest_s
        while not (self.host.through_with(self.name) and (self.host.run is None or self.host.run.over)):
            self.turn()
            assert self.clock_s < ends_s, self.desk.rollout
        return self.desk.rollout.status

    def run(self, **more: object) -> str:
        self.start(**more)
        self.open()
        return self.finish()

    def wish(self, wish: str) -> None:
        with self.home.database.change():
            RolloutBook(self.home.database).wish(self.name, wish)

    def outcomes(self) -> dict[str, str]:
        members = RolloutBook(self.home.database).load(self.name).members
        return {member.device: member.outcome or ("late" if member.late else "") for member in members}

    def offered(self) -> set[str]:
        """Returns the devices whose offer the broker keeps."""
        return {TOPICS.split(topic)[0] for topic in self.hub.retained if topic.endswith("/offer")}

    def noted(self, event: str) -> list[dict[str, object]]:
        return [dict(line) for line in self.home.database.ledger(self.name) if line["event"] == event]

    def names(self) -> set[str]:
        """Returns the digests on the shelf that the manifest of the roll-out names, itself included."""
        return {self.desk.offer.manifest, *blobs_of(self.boards[next(iter(self.boards))].manifest)}
