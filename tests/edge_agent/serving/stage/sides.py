"""The coordinator's side of one device, for tests: it serves blobs and keeps what the device says of its model."""

from __future__ import annotations

from collections import Counter
from time import monotonic

from edge_agent.agent import Agent
from edge_agent.config import LinkConfig, ModelConfig
from edge_agent.serving.policy import Finding
from edge_agent.serving.probe import Probe
from edge_agent.serving.probe_child import answer
from edge_agent.serving.slots import file_digest, read_pointer, read_slot
from tests.edge_agent.boards import IDLE, config
from tests.edge_agent.serving.stage.files import NOW_S, Publisher
from tests.inline_worker import InlineWorker
from wire.messages.reports import decode_ask
from wire.messages.rollout import decode_model_report, encode_offer
from wire.pieces.chunks import cut_spans, encode_chunk
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport, Message

TOPICS = Topics("test")
FAILING = "tests.edge_agent.serving.stage.failing_child"
WAIT_S = 60.0
HEALTH_S = 5.0


class QuickProbe:
    """A Probe that answers in this very process, or with a `module` as a real one does."""

    def __init__(self):
        self.module, self.header, self.real, self.options, self.wake = None, None, None, {}, ()

    @property
    def busy(self):
        return self.real.busy if self.real else self.header is not None

    def start(self, header, now_s):
        self.real = Probe(0, self.module) if self.module else None
        if self.real:
            self.real.start(header, now_s)
        else:
            self.header = header

    def poll(self, now_s):
        if self.real:
            return self.real.poll(now_s)
        found, self.header = answer(self.header), None
        self.options = found.pop("options")
        return Finding(**found)

    def stop(self):
        self.header = None
        if self.real:
            self.real.stop()

    def due_s(self, now_s):
        return 0.0


class Side:
    """The coordinator's side of one device: serves blobs, keeps what the device says of its model."""

    def __init__(self, folder, **changes):
        self.folder = folder
        self.publisher = Publisher(folder)
        self.changes = {"model_keys": (self.publisher.public,), "model": ModelConfig(health_s=HEALTH_S), **changes}
        self.hub, self.reports, self.asked, self.now_s, self.spoil = Hub(), [], [], 0.0, {}
        self.questions, self.sent = [], Counter()
        self.link = MemoryTransport(self.hub)
        self.link.subscribe(TOPICS.device("+", "model"), TOPICS.device("+", "ask"))
        self.agent = None
        self.start()

    def start(self):
        """Starts the agent, or another on what the one before left."""
        made = config(self.folder / "state", link=LinkConfig(), **self.changes)
        self.agent = Agent(
            made, MemoryTransport(self.hub), InlineWorker(), lambda: self.now_s, lambda: 0.5, lambda: IDLE
        )
        self.serving.wall_s = lambda: NOW_S
        self.serving.free_memory_bytes = lambda: None
        self.serving.probe = QuickProbe()
        if self.serving.watch:
            self.serving.watch.means = self.serving._means

    @property
    def serving(self):
        return self.agent.serving

    @property
    def models(self):
        return self.folder / "state" / "models"

    @property
    def live(self):
        """Returns the version that an application would find now, its file right; 0 without one."""
        pointer = read_pointer(self.models)
        slot = read_slot(self.models, pointer.serving) if pointer else None
        return slot.version if slot and file_digest(slot.path) == slot.facts["digest"] else 0

    @property
    def last(self):
        return self.reports[-1]

    def turn(self):
        """One step of each side; time passes only when nobody has anything to say."""
        busy = self.agent.step(0.0)
        while event := self.link.receive(0.0):
            busy = True
            if isinstance(event, Message) and event.topic.endswith("/model"):
                self.reports.append(decode_model_report(event.payload))
            elif isinstance(event, Message) and event.topic.endswith("/ask"):
                self.answer(decode_ask(event.payload))
        if not busy and not self.serving.probe.busy:
            self.now_s += 0.25

    def answer(self, ask):
        if ask.what != "blob" or ask.digest not in self.publisher.blobs:
            return
        self.asked.append(ask.digest)
        self.questions.append((ask.digest, ask.spans))
        data = self.spoil.get(ask.digest, self.publisher.blobs[ask.digest])
        for start, end in cut_spans(ask.spans, 1000):
            self.sent[ask.digest] += len(data[start:end])
            self.link.publish(TOPICS.blob(ask.digest), encode_chunk(ask.digest, len(data), start, data[start:end]))

    def offer(self, manifest, data=None):
        self.link.publish(
            TOPICS.device("dev-1", "offer"), encode_offer(self.publisher.offer(manifest, data)), retain=True
        )

    def until(self, *phases, version=None):
        """Returns the first report from now on that has one of the phases, and is about the version."""
        ends_s, at = monotonic() + WAIT_S, len(self.reports)
        while True:
            for report in self.reports[at:]:
                if report.phase in phases and version in (None, report.offered):
                    return report
            at = len(self.reports)
            self.turn()
            assert monotonic() < ends_s, f"{self.reports[-3:]}"

    def wait(self, what):
        """Goes on until `what()` is so."""
        ends_s = monotonic() + WAIT_S
        while not what():
            self.turn()
            assert monotonic() < ends_s, f"{self.reports[-3:]}"

    def bring(self, manifest, data=None):
        """Offers, and returns the report at the end."""
        self.offer(manifest, data)
        return self.until("healthy", "refused", "rolled-back", version=manifest.version)
