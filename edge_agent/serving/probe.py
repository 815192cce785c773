"""Tries a file in a process of its own, which may die of it: the resident sees a code, never the runtime.

One process a probe. It ends by itself after its answer; past its time it is killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.serving.policy import Finding
from wire.errors import StateError
from wire.messages.manifest import Manifest, Variant
from wire.pipe import Errand

__all__ = ["CHILD", "Probe", "probe_header"]

CHILD = "edge_agent.serving.probe_child"
_SLACK_S = 5.0  # the child's own limit on processor time comes first and says more
_SIGNALS = {"SIGXCPU": "E-MODEL-TIMEOUT", "SIGKILL": "E-MEMORY"}  # not sent by us, it is the kernel's when memory ends
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def probe_header(
    config: AgentConfig, manifest: Manifest, variant: Variant, *, path: Path, golden: Path, free_bytes: int | None
) -> dict[str, Any]:
    """Returns the job of a probe: the file, what it must be, and what it may take."""
    return {
        "path": str(path.absolute()),
        "digest": variant.digest,
        "golden": str(golden.absolute()),
        "golden_digest": manifest.golden,
        "variant": variant.name,
        "operators": list(variant.operators),
        "tolerance": variant.tolerance,
        "input": list(manifest.input),
        "outputs": manifest.outputs,
        "memory_bytes": free_bytes,
        "cpu_s": config.model.probe_s,
        "data": config.data.to_json(),
    }


@dataclass(slots=True)
class Probe:
    """At most one probe under way. `module` is the child's, so that a test can put one in that fails."""

    nice: int = 10
    module: str = CHILD
    errand: Errand | None = None
    ends_s: float = 0.0
    limit_s: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Tells whether a probe is under way."""
        return self.errand is not None

    def start(self, header: dict[str, Any], now_s: float) -> None:
        """Begins a probe."""
        self.stop()
        threads = dict.fromkeys(_ONE_THREAD, "1")
        self.errand = Errand(self.module, {"BITFLEET_NICE": str(self.nice), **threads})
        self.limit_s = float(header["cpu_s"])
        self.ends_s = now_s + self.limit_s + _SLACK_S
        try:
            self.errand.start(header)
        except StateError:
            self.errand = None
            raise

    def poll(self, now_s: float) -> Finding | None:
        """Returns what was found once it is known, and leaves the file's session options in `options`."""
        if self.errand is None:
            return None
        try:
            answer = self.errand.poll()
        except StateError as exc:
            self.stop()
            code = next((code for signal, code in _SIGNALS.items() if signal in exc.message), "E-MODEL-CRASH")
            return Finding(code=code, reason=f"trying it: {exc.message}")
        if answer is None and now_s < self.ends_s:
            return None
        self.stop()
        if answer is None:
            return Finding(code="E-MODEL-TIMEOUT", reason=f"trying it took more than {self.limit_s:.0f} s")
        return self._read(answer)

    def stop(self) -> None:
        """Ends the probe, if there is one."""
        if self.errand is not None:
            self.errand.stop()
        self.errand = None

    @property
    def wake(self) -> Sequence[int]:
        """Returns the file descriptors that are readable when `poll` has something."""
        return self.errand.wake if self.errand else ()

    def due_s(self, now_s: float) -> float:
        """Returns in how many seconds the probe's time is over."""
        return max(0.0, self.ends_s - now_s) if self.busy else float("inf")

    def _read(self, answer: Mapping[str, Any]) -> Finding:
        self.options = dict(answer.get("options", {}))
        return Finding(**{item.name: answer[item.name] for item in fields(Finding) if item.name in answer})
