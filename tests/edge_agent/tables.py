"""One agent over a broker in memory, whose coordinator is played by a test, and a worker whose child is killed."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.agent import Agent
from edge_agent.worker import KILLED, Result
from tests.inline_worker import InlineWorker
from wire.messages.reports import Receipt, decode_ask, decode_state, encode_receipt
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport, Message

__all__ = ["TOPICS", "Stubborn", "Table"]

TOPICS = Topics("test")


@dataclass
class Table:
    """One agent, and the other side of its topics."""

    agent: Agent
    hub: Hub
    other: MemoryTransport
    seen: list[Message] = field(default_factory=list)
    clock_s: float = 0.0

    def turn(self, times=20):
        for _ in range(times):
            if not self.agent.step(0.0):
                self.clock_s += 0.1
            while event := self.other.receive(0.0):
                if isinstance(event, Message):
                    self.seen.append(event)

    def say(self, leaf, payload, retain=False):
        self.other.publish(TOPICS.device("dev-1", leaf), payload, retain=retain)
        self.turn()

    def heard(self, leaf):
        return [message.payload for message in self.seen if message.topic.endswith(f"/{leaf}")]

    @property
    def declined(self):
        return [ask.code for ask in map(decode_ask, self.heard("ask")) if ask.what == "decline"]

    @property
    def states(self):
        return [decode_state(payload).state for payload in self.heard("state")]

    def receipt(self, verdict, **words):
        digest = next(iter(self.agent.uploads), "0" * 64)
        self.say("rcpt", encode_receipt(Receipt(digest, "run-1", 0, verdict, **words)))


@dataclass
class Stubborn:
    """A worker whose child is killed so many times before it works."""

    deaths: int
    inner: InlineWorker = field(default_factory=InlineWorker)
    wake: tuple[int, ...] = ()
    starts: int = 0
    result: Result | None = None

    def start(self, header, plan):
        self.starts += 1
        if self.starts <= self.deaths:
            self.result = Result(code=KILLED, reason="killed by SIGKILL")
        else:
            self.inner.start(header, plan)

    def poll(self, now_s):
        result, self.result = self.result, None
        return result or self.inner.poll(now_s)

    def stop(self):
        self.inner.stop()
