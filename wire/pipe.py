"""A child process that is spoken to in frames over its standard input and output.

The parent waits for no answer: it watches `Child.fd` and calls `Child.read`. The child dies with its
parent. Only a job that is larger than the pipe (64 KiB on Linux) makes the parent wait, until the child reads it: a new
one loads its modules first.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from wire.errors import StateError, WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame

__all__ = [
    "Child",
    "Errand",
    "die_with_parent",
    "give_way",
    "peak_memory",
    "python",
    "python_module",
    "reset_peak_memory",
    "serve_pipe",
]

_LENGTHS = struct.Struct("<8xIQ")
_PREFIX_BYTES, _CRC_BYTES = _LENGTHS.size, 4
_PR_SET_PDEATHSIG = 1
_RESET_PEAK = "5"


def python(code: str, *words: str) -> list[str]:
    """Returns the command that runs code in a new Python, which imports from where this one does.

    By itself it would look first in the folder that a person happens to be in, whose files may bear any name.
    """
    return [sys.executable, "-c", f"import sys; sys.path[:] = {[str(path) for path in sys.path]!a}\n{code}", *words]


def python_module(module: str, *words: str) -> list[str]:
    """Returns the command that runs a module as `python -m` does, imported from where this Python imports."""
    run = f"import runpy; del sys.argv[0]; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return python(run, module, *words)


@dataclass(slots=True)
class Child:
    """A running module in a Python of its own."""

    process: subprocess.Popen[bytes]
    _buffer: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, module: str, environment: Mapping[str, str] | None = None) -> Child:
        """Starts the module in a new Python."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            python_module(module, str(os.getpid())),
            stdin=pipe,
            stdout=pipe,
            env={**os.environ, **(environment or {})},
        )
        return cls(process)

    @property
    def fd(self) -> int:
        """Returns the file descriptor that is readable when there is something to `read`."""
        return int(_stream(self.process.stdout).fileno())

    def send(self, kind: Kind, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Hands a frame over; raises StateError if the child is gone."""
        try:
            stream = _stream(self.process.stdin)
            stream.write(encode_frame(kind, header, payload))
            stream.flush()
        except (BrokenPipeError, ValueError) as exc:
            raise StateError(f"the child process {self.process.pid} is gone: {self.ending()}") from exc

    def read(self, kind: Kind) -> Frame | None:
        """Returns the next frame if it is whole by now; never waits. See `ended`."""
        if select.select([self.fd], [], [], 0)[0]:
            self._buffer += os.read(self.fd, 1 << 16)
        if len(self._buffer) < _PREFIX_BYTES:
            return None
        header_bytes, payload_bytes = _LENGTHS.unpack_from(self._buffer)
        size = _PREFIX_BYTES + header_bytes + payload_bytes + _CRC_BYTES
        if len(self._buffer) < size:
            return None
        whole, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return decode_frame(whole, kind)

    @property
    def ended(self) -> bool:
        """Tells whether the process has ended."""
        return self.process.poll() is not None

    def ending(self) -> str:
        """Returns in words how the process ended."""
        code = self.process.poll()
        if code is None:
            return "still running"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def stop(self) -> None:
        """Kills the process and waits for it."""
        if not self.ended:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream and not stream.closed:
                _close(stream)


@dataclass(slots=True)
class Errand:
    """One job at a time for a child process, which is started when there is something to do."""

    module: str
    environment: Mapping[str, str]
    child: Child | None = None
    busy: bool = False

    def start(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Hands a job over."""
        if self.child is None or self.child.ended:
            self.stop()
            try:
                self.child = Child.start(self.module, self.environment)
            except OSError as exc:
                raise StateError(f"no child process could be started: {exc.strerror}") from exc
        self.busy = True
        try:
            self.child.send(Kind.JOB, header, payload)
        except StateError:
            return  # the next poll finds the child gone and says how it ended

    def poll(self) -> dict[str, Any] | None:
        """Returns the result once it is there; raises StateError if the child ended or spoke nonsense."""
        if self.child is None or not self.busy:
            return None
        try:
            frame = self.child.read(Kind.RESULT)
        except (WireError, OSError) as exc:
            self.stop()
            raise StateError(f"the child process sent nonsense: {exc}") from exc
        if frame is not None:
            self.busy = False
            return frame.header
        if self.child.ended:
            ending = self.child.ending()
            self.stop()
            raise StateError(f"the child process ended: {ending}")
        return None

    def stop(self) -> None:
        """Ends the child, whatever it is doing."""
        if self.child is not None:
            self.child.stop()
        self.child, self.busy = None, False

    @property
    def wake(self) -> tuple[int, ...]:
        """Returns the file descriptor that is readable when `poll` has something."""
        return (self.child.fd,) if self.child is not None and self.busy else ()


def die_with_parent(parent: int | None = None) -> None:
    """Asks the kernel to kill this process when its parent ends; ends at once if that has happened already.

    A process that was long in starting has to be told who its parent was.
    """
    parent = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def give_way(first_to_go: int) -> None:
    """Makes this process as nice as the parent asks, and the likelier to go first when memory ends."""
    os.nice(int(os.environ.get("BITFLEET_NICE", "0")))
    try:
        Path("/proc/self/oom_score_adj").write_text(str(first_to_go))
    except OSError as exc:
        print(f"event=oom-score reason={exc.strerror!r}", file=sys.stderr)


def reset_peak_memory(root: Path = Path("/")) -> str:
    """Starts the peak anew where the kernel lets us, and returns the name of the counter to read later."""
    try:
        (root / "proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return "ru_maxrss"
    return "VmHWM"


def peak_memory(source: str, root: Path = Path("/")) -> int | None:
    """Returns bytes: VmHWM since the reset, or the peak since the process began if it could not be reset."""
    if source == "ru_maxrss":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None


def serve_pipe(kind: Kind) -> Iterator[tuple[Frame, BinaryIO]]:
    """Yields each frame that the parent sends, and the stream for the answer, until the parent closes the pipe.

    Standard output is moved out of the way first: what the work prints goes to standard error.
    """
    die_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    while head := requests.read(_PREFIX_BYTES):
        if len(head) < _PREFIX_BYTES:
            raise WireError("the parent closed the pipe within a frame")
        header_bytes, payload_bytes = _LENGTHS.unpack(head)
        yield decode_frame(head + requests.read(header_bytes + payload_bytes + _CRC_BYTES), kind), answers


def _stream(stream: Any) -> Any:
    if stream is None:
        raise StateError("a child process without pipes")
    return stream


def _close(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return
