"""Which variant of a model this board takes, and why: the best accuracy among those that fit, of equals the smaller.

A variant fits if nothing that is known of it is over a limit. Unknown is not zero: where there is no meter, or nothing
was measured yet, that limit is not checked and `why` says what the choice went by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_agent.config import ModelConfig
from wire.messages.manifest import Variant
from wire.messages.rollout import Found

__all__ = ["Choice", "Finding", "choose", "release"]

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found of one variant: its figures, or the code and the reason of its failure. None is unknown."""

    load_ms: float | None = None
    latency_ms: float | None = None
    memory_bytes: int | None = None
    energy_mj: float | None = None
    accuracy: float | None = None
    examples: int = 0
    energy_source: str = ""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best variant that fits, or None. While it is not `probed`, it has yet to be tried on this device.

    `poor`: none fits, and one of them only because it does badly on this device's own examples; `short`: only because
    too little memory is free now.
    """

    variant: Variant | None
    probed: bool
    why: str
    found: tuple[Found, ...]
    poor: bool = False
    short: bool = False


def choose(
    variants: Sequence[Variant],
    findings: Mapping[str, Finding],
    policy: ModelConfig,
    free_memory_bytes: int | None,
    runtime: str,
    *,
    serving: str = "",
) -> Choice:
    """Returns the choice by all that is known; `findings` are the probes of this device, by variant.

    `serving` is the digest of the file that serves by now: the application has its memory, so that none must be free.
    """
    free = {one.name: None if one.digest == serving else free_memory_bytes for one in variants}
    judged = [(one, findings.get(one.name), _fault(one, findings.get(one.name), policy, free[one.name], runtime))
              for one in variants]  # fmt: skip
    fitting = sorted((_rank(one, finding), one.name) for one, finding, fault in judged if not fault)
    best = next((one for one, _, _ in judged if fitting and one.name == fitting[0][1]), None)
    found = tuple(_found(one, finding, fault, best) for one, finding, fault in judged)
    if best is None:
        poor = any(_poor(one, findings.get(one.name), policy, free[one.name], runtime) for one, _, _ in judged)
        short = free_memory_bytes is not None and any(
            not _fault(one, findings.get(one.name), policy, None, runtime) for one, _, _ in judged
        )
        return Choice(None, False, _nothing(findings, found), found, poor, short)
    tried = sum(name in findings for _, name in fitting)
    field = f"{len(fitting)} of {len(judged)} variants that fit{_limits(policy)}, {tried or 'none'} of them tried here"
    return Choice(best, best.name in findings, f"best of {field}: {_why(best, findings.get(best.name))}", found)


def release(version: str) -> tuple[int, ...]:
    """Returns the numbers that a version starts with; what is no number ends them."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _fault(variant: Variant, finding: Finding | None, policy: ModelConfig, free_bytes: int | None, runtime: str) -> str:
    """Returns why a variant does not fit, or nothing."""
    return _limit(variant, finding, policy, free_bytes, runtime) or _low(variant, finding, policy)


def _poor(variant: Variant, finding: Finding | None, policy: ModelConfig, free_bytes: int | None, runtime: str) -> bool:
    """Tells whether a variant would fit, but for its accuracy as it was measured on this device."""
    if finding is None or finding.accuracy is None or _limit(variant, finding, policy, free_bytes, runtime):
        return False
    return bool(_low(variant, finding, policy))


def _limit(variant: Variant, finding: Finding | None, policy: ModelConfig, free_bytes: int | None, runtime: str) -> str:
    """Returns what keeps a variant out whatever its accuracy, or nothing."""
    if finding is not None and finding.code:
        return f"{finding.code}: {finding.reason}"
    if policy.profiles and variant.profile not in policy.profiles:
        return f"profile {variant.profile}, allowed {', '.join(policy.profiles)}"
    if release(runtime) < release(variant.min_runtime):
        return f"needs onnxruntime {variant.min_runtime}, here is {runtime}"
    seen = finding or Finding()
    memory = variant.measured.memory_bytes if seen.memory_bytes is None else seen.memory_bytes
    limits = (
        ("the file has", variant.size, policy.max_size_mb * _MB, "bytes"),
        ("the file has", variant.size, policy.max_bytes, "bytes"),
        ("it needs", memory, free_bytes or 0, "bytes of memory"),
        ("it takes", seen.latency_ms, policy.max_latency_ms, "ms"),
        ("it takes", seen.energy_mj, policy.max_mj, "mJ"),
    )
    for words, value, most, unit in limits:
        if most and value is not None and value > most:
            return f"{words} {_figure(value)} {unit}, at most {_figure(most)}"
    return ""


def _low(variant: Variant, finding: Finding | None, policy: ModelConfig) -> str:
    """Returns that a variant's accuracy is below the least, or nothing."""
    accuracy = _accuracy(variant, finding)
    if accuracy is not None and accuracy < policy.min_accuracy:
        return f"accuracy {accuracy:.4f} {_by(finding)}, at least {policy.min_accuracy:.4f}"
    return ""


def _rank(variant: Variant, finding: Finding | None) -> tuple[float, float, int]:
    """Returns what to sort by: known accuracy first and high, then more bits where none is known, then small."""
    accuracy = _accuracy(variant, finding)
    return (1.0, -variant.bits, variant.size) if accuracy is None else (-accuracy, 0.0, variant.size)


def _accuracy(variant: Variant, finding: Finding | None) -> float | None:
    """Returns the device's own where known, else the manifest's."""
    own = finding.accuracy if finding else None
    return variant.measured.accuracy if own is None else own


def _by(finding: Finding | None) -> str:
    if finding is None or finding.accuracy is None:
        return "by the manifest"
    return f"on {finding.examples} examples of this device"


def _limits(policy: ModelConfig) -> str:
    """Returns the limits that a person set, in words."""
    names = ("max_latency_ms", "max_bytes", "max_mj", "min_accuracy")
    of = [f"{name} {_figure(value)}" for name in names if (value := getattr(policy, name))]
    of += [f"profile {' or '.join(policy.profiles)}"] if policy.profiles else []
    return f" ({', '.join(of)})" if of else ""


def _why(best: Variant, finding: Finding | None) -> str:
    accuracy = _accuracy(best, finding)
    known = f"accuracy {accuracy:.4f} {_by(finding)}" if accuracy is not None else "accuracy unknown, most bits"
    took = "" if finding is None or finding.latency_ms is None else f", {_figure(finding.latency_ms)} ms here"
    return f"{known}, {best.size} bytes{took}"


def _nothing(findings: Mapping[str, Finding], found: tuple[Found, ...]) -> str:
    return "; ".join(f"{one.variant}: {one.why}" for one in found) or "the manifest names no variant"


def _found(variant: Variant, finding: Finding | None, fault: str, best: Variant | None) -> Found:
    seen = finding or Finding()
    why = fault or ("chosen" if best is variant else "fits; another is more accurate, or as accurate and smaller")
    if finding is None and not fault:
        why += "; not tried here"
    return Found(
        variant=variant.name,
        fits=not fault,
        why=why,
        latency_ms=seen.latency_ms,
        memory_bytes=seen.memory_bytes,
        energy_mj=seen.energy_mj,
        energy_source=seen.energy_source,
        accuracy=seen.accuracy,
    )


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
