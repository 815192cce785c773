"""The devices that were ever seen, as they last said of themselves."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from coordinator.state.database import Database
from wire.frame import Kind, decode_frame
from wire.messages.reports import DeviceState, decode_state

__all__ = ["Device", "Registry"]

_AWAY = ("lost", "disconnected")
_INFO_BYTES = 4096
_TASK_SIGNS = 40


@dataclass(frozen=True, slots=True)
class Device:
    """One device; `info` is what it announced, empty until it did."""

    id: str
    state: DeviceState
    info: dict[str, Any] = field(default_factory=dict)
    last_seen: float = 0.0

    @property
    def here(self) -> bool:
        """Tells whether the device is connected as far as the broker knows."""
        return self.state.state not in _AWAY


@dataclass(slots=True)
class Registry:
    """Keeps a fleet's devices in memory (states are not worth a disk write each), saves them with the next change.

    `fresh` says that a device is among them which was never saved.
    """

    database: Database
    fleet: str
    devices: dict[str, Device] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    fresh: bool = False

    def recall(self) -> None:
        """Reads what an earlier process saved; all are taken as lost until they are heard of."""
        for row in self.database.rows("SELECT * FROM devices WHERE fleet = ?", self.fleet):
            state = DeviceState("lost", row["session"])
            self.devices[row["device"]] = Device(row["device"], state, json.loads(row["info"]), row["last_seen"])

    def hear(self, device: str, leaf: str, payload: bytes) -> None:
        """Reads what a device says of itself; raises WireError if it is garbled."""
        if leaf == "info" and payload:
            self.heard_info(device, decode_frame(payload, Kind.INFO, _INFO_BYTES).header)
        elif leaf == "state" and payload:
            self.heard_state(device, decode_state(payload))

    def heard_state(self, device: str, state: DeviceState) -> bool:
        """Notes a state; a will of an earlier session is ignored. Tells whether it counts.

        Whoever speaks is here, whatever the session: a device that was installed anew counts from 1 again.
        """
        known = self.devices.get(device)
        if known and state.state in _AWAY and state.session < known.state.session:
            return False
        self._put(Device(device, state, known.info if known else {}, time.time()))
        return True

    def heard_info(self, device: str, info: dict[str, Any]) -> None:
        """Notes what a device can do."""
        known = self.devices.get(device)
        self._put(Device(device, known.state if known else DeviceState("init", 0), info, time.time()))

    def eligible(self, task: str) -> list[str]:
        """Returns the devices that are here and hold data for the task, sorted by id."""
        return sorted(d.id for d in self.devices.values() if d.here and d.info.get("task") == task)

    def tasks_besides(self, task: str) -> list[str]:
        """Returns the task of every device that is here and holds data for another one, as a text that is safe."""
        held = (d.info["task"] for d in self.devices.values() if d.here and "task" in d.info)
        return [repr(other)[:_TASK_SIGNS] for other in held if other != task]

    def save(self) -> None:
        """Writes what changed; only within a change of the database."""
        for name in sorted(self.unsaved):
            device, now = self.devices[name], time.time()
            self.database.write(
                "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (fleet, device) DO UPDATE SET "
                "state = excluded.state, session = excluded.session, code = excluded.code, reason = excluded.reason, "
                "info = excluded.info, last_seen = excluded.last_seen",
                self.fleet, name, device.state.state, device.state.session, device.state.code, device.state.reason,
                json.dumps(device.info), now, device.last_seen,
            )  # fmt: skip
        self.unsaved.clear()
        self.fresh = False

    def _put(self, device: Device) -> None:
        self.fresh = self.fresh or device.id not in self.devices
        self.devices[device.id] = device
        self.unsaved.add(device.id)
