"""The topic tree and who may read or write each topic: one table for the code, the broker's ACL file and the tests.

Root: fl/1/<fleet>/. A device's id is its MQTT user name wherever the broker checks one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wire.errors import ConfigError
from wire.messages.fields import DEVICE_ID

__all__ = ["TABLE", "Topic", "Topics", "acl_file"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One row: `path` below the root; {device} stands for an id, + for a digest."""

    path: str
    meaning: str
    retained: bool
    writer: str
    readers: tuple[str, ...]


_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")

TABLE = (
    Topic("d/{device}/state", "what the device does; its will", True, "device", ("coordinator", "dashboard")),
    Topic("d/{device}/info", "what the device is and can do", True, "device", ("coordinator", "dashboard")),
    Topic("d/{device}/up", "pieces of updates", False, "device", ("coordinator",)),
    Topic("d/{device}/ask", "questions and refusals of plans", False, "device", ("coordinator",)),
    Topic("d/{device}/plan", "the invitation to the open round", True, "coordinator", ("device",)),
    Topic("d/{device}/rcpt", "receipts for updates", False, "coordinator", ("device",)),
    Topic("d/{device}/offer", "the model that the device may have", True, "coordinator", ("device",)),
    Topic(
        "d/{device}/model",
        "which model it staged, serves and finds healthy",
        True,
        "device",
        ("coordinator", "dashboard"),
    ),
    Topic("m/blob/+", "pieces of models and specs, on request", False, "coordinator", ("device",)),
    Topic("c/state", "the coordinator's presence; its will", True, "coordinator", ("device", "dashboard")),
)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one fleet."""

    fleet: str

    def __post_init__(self) -> None:
        if not DEVICE_ID.fullmatch(self.fleet):
            raise ConfigError(f"fleet = {self.fleet!r}", remedy="use 1 to 32 of a-z, 0-9 and hyphen")

    @property
    def root(self) -> str:
        """Returns what every topic starts with."""
        return f"fl/1/{self.fleet}"

    def device(self, device: str, leaf: str) -> str:
        """Returns a device's topic; device "+" matches all."""
        return f"{self.root}/d/{device}/{leaf}"

    def blob(self, digest: str) -> str:
        """Returns the topic of a blob's pieces."""
        return f"{self.root}/m/blob/{digest}"

    @property
    def coordinator(self) -> str:
        """Returns the coordinator's own state topic."""
        return f"{self.root}/c/state"

    def split(self, topic: str) -> tuple[str, str] | None:
        """Returns (device, leaf) of a device's topic, or None for any other."""
        parts = topic.split("/")
        head = [*self.root.split("/"), "d"]
        if parts[: len(head)] != head or len(parts) != len(head) + 2:
            return None
        device, leaf = parts[len(head) :]
        return (device, leaf) if DEVICE_ID.fullmatch(device) else None


def acl_file(fleet: str, coordinator: str = "coordinator", dashboard: str = "dashboard") -> str:
    """Returns the table as a mosquitto ACL file: default deny, a device reaches its own topics only."""
    root = Topics(fleet).root
    for role, user in (("coordinator", coordinator), ("dashboard", dashboard)):
        if not _USER.fullmatch(user):  # it becomes a line of the file, and part of a topic filter
            raise ConfigError(f"{role} = {user!r}", remedy="use 1 to 64 of a-z, A-Z, 0-9 and . _ @ -")
    if coordinator == dashboard:
        raise ConfigError(f"coordinator = {coordinator!r} is the dashboard's name", remedy="choose another name")
    lines = ["# Made from wire/topics.py"]
    for role, user in (("coordinator", coordinator), ("dashboard", dashboard)):
        lines += ["", f"user {user}", *_denials(role, user, root)]
        lines += [line for row in TABLE for line in _rights(row, role, f"{root}/{row.path.replace('{device}', '+')}")]
    lines += ["", "# every other user name is a device's id"]
    lines += [line for row in TABLE for line in _device_rights(row, root)]
    return "\n".join(lines) + "\n"


def _denials(role: str, user: str, root: str) -> list[str]:
    """Returns what takes back from a person's user name what the patterns for devices give to every name."""
    shared = [row.path for row in TABLE if "{device}" not in row.path and role not in (row.writer, *row.readers)]
    return [f"topic deny {root}/{path}" for path in [f"d/{user}/#", *shared]]


def _rights(row: Topic, role: str, topic: str) -> list[str]:
    if row.writer == role:
        return [f"topic write {topic}"]
    return [f"topic read {topic}"] if role in row.readers else []


def _device_rights(row: Topic, root: str) -> list[str]:
    topic = f"{root}/{row.path.replace('{device}', '%u')}"
    if row.writer == "device":
        return [f"pattern write {topic}"]
    return [f"pattern read {topic}"] if "device" in row.readers else []
