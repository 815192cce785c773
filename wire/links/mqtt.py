"""A transport onto a real broker: MQTT 5 over TCP or TLS, one thread, nothing sent twice by itself.

paho makes and reads the packets; the waiting, the window of unanswered publishes and the way back after a lost link
are here. Every attempt to connect gets a client of its own that starts clean, so nothing outlives a link.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from time import monotonic
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from wire.errors import BitfleetError, ConfigError, TransportError
from wire.links.failures import broken, unopened
from wire.links.link import Backoff, Link, read_password, tls_context
from wire.links.sockets import tune, wait
from wire.transport import Down, Event, Message, Sent, Unsent, Up, Will

__all__ = ["ROOM_BYTES", "MqttTransport"]

ROOM_BYTES = 512  # what a packet needs beside its payload: topic, identifier, lengths, properties
_GOODBYE_WAIT_S = 2.0
_WINDOW = 64
_LARGEST_PACKET_BYTES = 1024 * 1024  # a broker that heeds it spares a board from what no sender of ours makes
_NOBODY_LISTENS, _FAILURE, _TOO_LARGE = 0x10, 0x80, 0x95


@dataclass(frozen=True, slots=True)
class _Post:
    token: int
    topic: str
    payload: bytes
    retain: bool


@dataclass
class _Session:
    """One connection, from the attempt to its end."""

    client: Client
    opened_s: float
    up_s: float | None = None
    window: int = 0
    payload_bytes: int = 0
    waiting: deque[_Post] = field(default_factory=deque)
    flying: dict[int, _Post] = field(default_factory=dict)
    asked: dict[int, tuple[str, ...]] = field(default_factory=dict)
    why: str = ""


@dataclass(eq=False, repr=False)
class MqttTransport:
    """One MQTT 5 client behind the Transport protocol; it connects at the first `receive`, and again after `Down`.

    What is published while the link is down is lost without a word: `Up` is the moment to publish it. A payload over
    `Up.payload_bytes` is not sent: it comes back as `Unsent` with code 0x95, because a broker would drop the link for
    it. A refused subscription comes back as `Unsent` with token 0 and the filter as its topic. Connecting blocks
    for as long as the system looks up the host's name, then for `connect_timeout_s` at most (for each address and each
    step of TLS); nothing else outlasts the time-out given.
    """

    link: Link
    client_id: str
    will: Will | None = None
    keepalive_s: int = 60
    chunk_bytes: int = 64 * 1024
    receive_maximum: int = 64
    connect_timeout_s: float = 5.0
    connack_wait_s: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)
    uniform: Callable[[], float] = field(default_factory=lambda: SystemRandom().random)
    _events: deque[Event] = field(default_factory=deque, init=False)
    _session: _Session | None = field(default=None, init=False)
    _token: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _due_s: float = field(default=0.0, init=False)
    _closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not self.client_id or not 1 <= self.keepalive_s <= 65535:  # rumqttd takes neither no name nor no keep-alive
            raise ConfigError(f"client id {self.client_id!r}, keep-alive {self.keepalive_s} s", remedy="1 to 65535 s")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """See Transport."""
        if not topic or "+" in topic or "#" in topic or len(topic.encode()) > ROOM_BYTES - 16:
            raise TransportError(f"topic {topic!r} is empty, too long or holds a wildcard", remedy="see wire.topics")
        self._token += 1
        session = self._live()
        if session and len(payload) > session.payload_bytes:
            reason = f"{len(payload)} bytes, and this broker leaves room for {session.payload_bytes}"
            self._events.append(Unsent(self._token, topic, _TOO_LARGE, reason))
        elif session:
            session.waiting.append(_Post(self._token, topic, payload, retain))
            self._move(session)
        return self._token

    def subscribe(self, *filters: str) -> None:
        """See Transport."""
        if filters and (session := self._live()):
            try:
                _, mid = session.client.subscribe([(name, 1) for name in filters])
            except ValueError as exc:
                raise TransportError(f"among the filters {filters} is one that MQTT has no meaning for") from exc
            session.asked[mid or 0] = filters
            self._move(session)

    def unsubscribe(self, *filters: str) -> None:
        """See Transport."""
        if filters and (session := self._live()):
            session.client.unsubscribe(list(filters))
            self._move(session)

    def receive(self, timeout_s: float, wake: Sequence[int] = ()) -> Event | None:
        """See Transport."""
        if self._closed:
            raise TransportError(f"the link of {self.client_id} was closed here", remedy="make a new transport")
        ends_s = monotonic() + timeout_s
        while not self._events:
            left_s = max(0.0, ends_s - monotonic())
            woken = self._turn(left_s, wake)
            if not self._events and (woken or left_s == 0.0):
                return None
        return self._events.popleft()

    def close(self, farewell: Message | None = None) -> None:
        """See Transport; a farewell that the broker does not take in time leaves the word to the will."""
        session, self._closed = self._live(), True
        ends_s = monotonic() + _GOODBYE_WAIT_S
        if session and (farewell is None or self._delivered(farewell, ends_s)):
            session.client.disconnect()
            while self._session is session and session.client.socket() is not None and monotonic() < ends_s:
                self._turn(0.1, ())
        if self._session:
            _hang_up(self._session.client)
            self._session = None
        self._events.clear()

    def _live(self) -> _Session | None:
        return self._session if self._session and self._session.up_s is not None else None

    def _delivered(self, last: Message, ends_s: float) -> bool:
        token = self.publish(last.topic, last.payload, retain=True)
        while self._session is not None and monotonic() < ends_s:
            answers = [event for event in self._events if isinstance(event, (Sent, Unsent)) and event.token == token]
            if answers:
                return isinstance(answers[0], Sent)
            self._turn(0.1, ())
        return False

    def _turn(self, wait_s: float, wake: Sequence[int]) -> bool:
        """Waits once and moves what can be moved; returns whether a descriptor in `wake` is readable."""
        if self._session is None and not self._closed and monotonic() >= self._due_s:
            self._open()
        session = self._session
        if session is None:
            pause_s = 0.0 if self._events else max(0.0, self._due_s - monotonic())
            return wait(None, False, wake, min(wait_s, pause_s))[2]
        sock, writing = session.client.socket(), session.client.want_write()
        readable, writable, woken = wait(sock, writing, wake, min(wait_s, _tick_s(session)))
        if readable:
            _read(session)
        if writable:
            session.client.loop_write()
        session.client.loop_misc()
        self._move(session)
        return woken

    def _move(self, session: _Session) -> None:
        """Sends what the window allows and notices the end of the link."""
        while session.waiting and len(session.flying) < session.window and session.client.socket() is not None:
            post = session.waiting.popleft()
            info = session.client.publish(post.topic, post.payload, qos=1, retain=post.retain)
            session.flying[info.mid] = post
        if session.up_s is None and monotonic() >= session.opened_s + self.connack_wait_s and not session.why:
            session.why = f"no CONNACK in {self.connack_wait_s:g} s"
            _hang_up(session.client)
        if session.client.socket() is None and session is self._session:
            self._lose(session.why or broken(self.link, session.up_s is not None), session.up_s)

    def _open(self) -> None:
        try:
            client = self._client()
            self._session = _Session(client, monotonic())
            client.user_data_set(self._session)
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = self.receive_maximum
            properties.MaximumPacketSize = max(_LARGEST_PACKET_BYTES, self.chunk_bytes + ROOM_BYTES)
            client.connect(self.link.host, self.link.port, self.keepalive_s, clean_start=True, properties=properties)
        except (OSError, ValueError, BitfleetError) as exc:
            self._lose(unopened(self.link, exc), None)

    def _lose(self, reason: str, up_s: float | None) -> None:
        now_s = monotonic()
        if up_s is not None and now_s - up_s >= self.backoff.lasted_s:
            self._failures = 0
        self._due_s = now_s + self.backoff.wait_s(self._failures, self.uniform)
        self._failures += 1
        self._session = None
        self._events.append(Down(reason))

    def _client(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, self.client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect_timeout = self.connect_timeout_s
        client.max_inflight_messages = 0  # the window is kept here, because only CONNACK tells how wide it may be
        if self.link.username:
            client.username_pw_set(self.link.username, read_password(self.link))
        if self.link.tls:
            client.tls_set_context(tls_context(self.link))
        if self.will:
            client.will_set(self.will.topic, self.will.payload, qos=1, retain=True)
        client.on_socket_open = lambda _client, _session, sock: tune(sock)
        client.on_connect, client.on_disconnect = self._on_connect, _on_disconnect
        client.on_publish, client.on_subscribe = self._on_publish, self._on_subscribe
        client.on_message = self._on_message
        return client

    def _on_connect(self, _: Client, session: _Session, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            session.why = f"the broker refused: {_name(reason)}"
            return
        packet_bytes = getattr(properties, "MaximumPacketSize", self.chunk_bytes + ROOM_BYTES)
        session.payload_bytes = max(0, min(self.chunk_bytes, packet_bytes - ROOM_BYTES))
        session.window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        session.up_s = monotonic()
        self._events.append(Up(session.payload_bytes))

    def _on_publish(self, _: Client, session: _Session, mid: int, reason: ReasonCode, _properties: Any) -> None:
        post = session.flying.pop(mid)
        unheard = reason.value == _NOBODY_LISTENS and not post.retain
        if reason.value >= _FAILURE or unheard:
            self._events.append(Unsent(post.token, post.topic, reason.value, _name(reason)))
        else:
            self._events.append(Sent(post.token))

    def _on_subscribe(self, _: Client, session: _Session, mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for name, reason in zip(session.asked.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self._events.append(Unsent(0, name, reason.value, f"subscription refused: {_name(reason)}"))

    def _on_message(self, _: Client, _session: _Session, message: MQTTMessage) -> None:
        self._events.append(Message(message.topic, bytes(message.payload), bool(message.retain)))


def _on_disconnect(_: Client, session: _Session, flags: DisconnectFlags, reason: ReasonCode, _properties: Any) -> None:
    if flags.is_disconnect_packet_from_server:
        session.why = f"the broker ended the link: {_name(reason)}"
    elif not session.why and session.up_s is not None and reason.value != _FAILURE:  # 0x80: all that paho knows
        session.why = f"the link broke: {_name(reason)}"


def _tick_s(session: _Session) -> float:
    """Returns how long the clocks may stand still: brokers wait 1.5 keep-alives for a ping; 0 means no pings."""
    return (session.client.keepalive or 60) / 8 if session.up_s is not None else 1.0


def _name(reason: ReasonCode) -> str:
    return f"{reason} (0x{reason.value:02x})"


def _read(session: _Session) -> None:
    """Reads what is there; bytes that are no MQTT 5 end the link instead of the caller."""
    try:
        session.client.loop_read()
    except (ValueError, LookupError, struct.error, MQTTException) as exc:
        session.why = f"the broker sent what is no MQTT 5: {exc!r}"
        _hang_up(session.client)


def _hang_up(client: Client) -> None:
    """Closes the socket without a goodbye, so that the broker sends the will."""
    client.connect_async(client.host or "-", client.port)  # documented: ends an established connection immediately
