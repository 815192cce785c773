"""Runs the jobs of virtual devices on a Ray cluster that someone already has.

A job travels as a bundle: header, plan, and the files that it needs. What comes back is the answer and the files that
it made. Files of a store are named by digest, so each goes into the cluster once, however many devices hold it. Ray
runs a job again whose worker or node died; after that the agent tries as with any killed child.

Every node needs the same version of this package and the task's data. Ray moves bundles with pickle: use a cluster
whose every member you trust.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_agent.training.child import answer
from edge_agent.worker import KILLED, Result
from simulation.child import Shares
from wire.errors import ConfigError, TransportError
from wire.frame import Kind, decode_frame, encode_frame
from wire.pieces.assembly import write_whole

__all__ = ["RayExecutor", "run_bundle"]

_RETRIES = 3
_GLANCE_S = 0.2
_REACH_S = 5.0
_FOLDERS = ("store", "memory", "outbox")

Files = dict[str, bytes]


@dataclass(slots=True)
class RayExecutor:
    """Runs jobs on the cluster at `address` ("auto": the one that this machine belongs to), one CPU each."""

    address: str
    ray: Any = field(init=False)
    task: Any = field(init=False)
    running: dict[Any, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    blobs: dict[str, Any] = field(default_factory=dict)
    started: int = 0
    wake: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.ray = _imported()
        try:
            _reach(self.address)
            self.ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as exc:
            remedy = "start a cluster with `ray start --head`, or give the address of one"
            raise TransportError(f"--ray {self.address}: {exc}", remedy=remedy) from exc
        self.task = self.ray.remote(num_cpus=1, max_retries=_RETRIES)(run_bundle)

    def start(self, header: Mapping[str, Any], plan: bytes) -> int:
        """See Executor."""
        self.started += 1
        store, memory = _files(Path(header["store"])), _files(Path(header["memory"]))
        refs = {name: self._shared(name, data) for name, data in store.items()}
        self._forget_others(refs)
        ref = self.task.remote(dict(header), plan, refs, memory)
        self.running[ref] = self.started, header
        return self.started

    def poll(self) -> list[tuple[int, Result]]:
        """See Executor; waits a moment for the first job that ends."""
        if not self.running:
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=_GLANCE_S)
        return [self._ended(ref) for ref in ready]

    def drop(self, token: int) -> None:
        """See Executor."""
        for ref in [ref for ref, (known, _) in self.running.items() if known == token]:
            del self.running[ref]
            self.ray.cancel(ref, force=False)

    def stop(self) -> None:
        """See Executor; the cluster stays."""
        for token, _ in list(self.running.values()):
            self.drop(token)
        self.blobs.clear()
        self.ray.shutdown()

    def _ended(self, ref: Any) -> tuple[int, Result]:
        token, header = self.running.pop(ref)
        try:
            result, made = self.ray.get(ref)
        except self.ray.exceptions.RayError as exc:
            return token, Result(code=KILLED, reason=f"{type(exc).__name__} on the Ray cluster")
        for folder in _FOLDERS:  # the update last, as a child does it
            _settle(Path(header[folder]), made[folder], keep=folder != "memory")
        return token, Result(**result)

    def _shared(self, name: str, data: bytes) -> Any:
        if name not in self.blobs:
            self.blobs[name] = self.ray.put(data)
        return self.blobs[name]

    def _forget_others(self, held: Mapping[str, Any]) -> None:
        """Frees the blobs of rounds that are over: all that no job names, once none is running."""
        if not self.running:
            self.blobs = {name: ref for name, ref in self.blobs.items() if name in held}


def run_bundle(
    header: dict[str, Any], plan: bytes, store: Mapping[str, Any], memory: Files
) -> tuple[dict[str, Any], dict[str, Files]]:
    """Returns a job's answer and the files of its folders that are new; runs on a node of the cluster."""
    values = _imported().get(list(store.values()))
    given = {"store": dict(zip(store, values, strict=True)), "memory": memory, "outbox": {}}
    with TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in _FOLDERS}
        for name, folder in folders.items():
            folder.mkdir()
            for file, data in given[name].items():
                (folder / file).write_bytes(data)
        own = {**header, **{name: str(folder) for name, folder in folders.items()}}
        result = answer(decode_frame(encode_frame(Kind.JOB, own, plan), Kind.JOB), _shares())
        made = {name: _files(folder) for name, folder in folders.items()}
    made["store"] = {name: data for name, data in made["store"].items() if name not in given["store"]}
    return result, made


@lru_cache(maxsize=1)
def _shares() -> Shares:
    """Returns the examples that this worker process has read."""
    return Shares()


def _imported() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigError("--ray needs the package ray", remedy="pip install 'bitfleet[ray]'") from exc
    return ray


def _reach(address: str) -> None:
    """Raises OSError if nobody listens there: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _REACH_S).close()


def _files(folder: Path) -> Files:
    """Returns the whole files of a folder, which may not be there."""
    if not folder.is_dir():
        return {}
    paths = (path for path in sorted(folder.iterdir()) if path.is_file())
    return {path.name: path.read_bytes() for path in paths if path.suffix not in (".part", ".spans", ".tmp")}


def _settle(folder: Path, made: Files, keep: bool) -> None:
    """Brings a folder to what the job left; with `keep` nothing is deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        write_whole(folder / name, data, durable=False)
    for name in () if keep else set(_files(folder)) - set(made):
        (folder / name).unlink(missing_ok=True)
