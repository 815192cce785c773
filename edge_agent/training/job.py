"""One round's work in the training child: build the base model, train, encode, and leave the update in the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from edge_agent.config import DataConfig
from edge_agent.kept.outbox import entry_path
from edge_agent.training.fit import Fit
from edge_agent.training.recall import recall, remember
from edge_agent.training.sending import encoded
from models.archs import spec_of
from models.dataset import Dataset
from models.init import frozen, initial
from models.tasks import dataset_of
from wire.errors import Declined, WireError
from wire.messages.blob import apply_blob, digest_bytes, read_snapshot, read_trunk, snapshot_blob
from wire.messages.chain import decode_chain
from wire.messages.plan import RoundPlan, decode_plan
from wire.messages.update import UpdateHeader
from wire.params import Params
from wire.pieces.assembly import write_whole
from wire.pipe import peak_memory, reset_peak_memory
from wire.spec import ModelSpec, parse_json, spec_digest

__all__ = ["Common", "Job", "job_from", "run_job"]


class Common(Protocol):
    """What devices share that are worked on in one process (simulation/child.py). A board has only itself."""

    def examples(self, config: DataConfig, spec: ModelSpec) -> Dataset:
        """Returns a device's examples, as `local_data` does."""

    def base(self, name: tuple[str, str], make: Callable[[], Params]) -> Params:
        """Returns the model of this name, made if it was not before, to be read and not written."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the child needs: where things lie, which blobs lead to the base, and the plan."""

    device: str
    store: Path
    outbox: Path
    memory: Path
    path: tuple[str, ...]
    data: DataConfig
    own: Mapping[str, Any]
    threads: int
    fetched_bytes: int
    plan: RoundPlan
    durable: bool = True


def job_from(header: Mapping[str, Any], plan: bytes) -> Job:
    """Returns the job in a header made by edge_agent/work.py and a plan's frame."""
    return Job(
        device=header["device"],
        store=Path(header["store"]),
        outbox=Path(header["outbox"]),
        memory=Path(header["memory"]),
        path=tuple(header["path"]),
        data=DataConfig.from_json(header["data"]),
        own=header["personal"],
        threads=header["threads"],
        fetched_bytes=header["fetched_bytes"],
        plan=decode_plan(plan),
        durable=header.get("durable", True),
    )


def run_job(job: Job, common: Common | None = None) -> dict[str, Any]:
    """Returns digest, size and metrics of the update that now lies in the outbox.

    `common` is what many devices in one process share.
    """
    clocks = time.monotonic(), time.process_time()
    source = reset_peak_memory()
    plan, spec = job.plan, _spec(job)
    base = _base(job, spec, common)
    recalled = recall(job.memory, plan.run, plan.round, plan.given_up) if plan.remembers else ({}, "")
    fit = _trained(job, spec, base, recalled[0], common)
    metrics: dict[str, float | str] = {
        **fit.metrics,
        "seconds": round(time.monotonic() - clocks[0], 4),
        "cpu_s": round(time.process_time() - clocks[1], 4),
        "down_bytes": job.fetched_bytes,
    }
    peak = peak_memory(source)
    if peak is not None:
        metrics |= {"peak_bytes": peak, "peak_source": source}
    header = UpdateHeader(plan.run, plan.round, job.device, plan.base, plan.kind, fit.examples, metrics)
    data, unsent = encoded(header, fit.params, base, plan, spec, recalled=recalled)
    if plan.remembers:
        remember(job.memory, plan.run, plan.round, {**fit.memory, **unsent}, fit.own, job.durable)
    digest = digest_bytes(data)
    write_whole(entry_path(job.outbox, plan.run, plan.round, digest), data, job.durable)
    return {"digest": digest, "size": len(data), "metrics": metrics}


def _spec(job: Job) -> ModelSpec:
    data = _stored(job.store / job.plan.spec)
    if digest_bytes(data) != job.plan.spec:
        raise WireError(f"spec {job.plan.spec[:12]} holds other bytes", code="E-BLOB", remedy="fetch it again")
    try:
        spec = ModelSpec.from_json(parse_json(data))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise WireError(f"spec {job.plan.spec[:12]} cannot be read: {exc}") from exc
    frozen = tuple(tensor.name for tensor in spec.frozen)
    own = spec_of(spec.arch, spec.input, spec.outputs, spec.seed, frozen, bell=spec.bell)
    if spec_digest(own) != job.plan.spec:
        raise Declined(
            f"this device's {spec.arch!r} is not the coordinator's",
            code="E-SPEC",
            remedy="install the same version of the package that defines it on both sides",
        )
    return spec


def _base(job: Job, spec: ModelSpec, common: Common | None) -> Params:
    """Returns the model to start from, and keeps it where later deltas may start from it."""
    plan = job.plan
    params = common.base((plan.spec, plan.base), lambda: _reached(job, spec)) if common else _reached(job, spec)
    path = job.store / f"{plan.base}.model"
    if any(ref.source for ref in plan.blobs) and not path.exists():
        write_whole(path, snapshot_blob(params, spec)[1], job.durable)
    return params


def _reached(job: Job, spec: ModelSpec) -> Params:
    """Returns the model that the job's blobs lead to."""
    refs = {ref.digest: ref for ref in job.plan.blobs}
    if any(digest not in refs for digest in job.path):
        refs |= {ref.digest: ref for ref in decode_chain(_stored(job.store / job.plan.chain))}
    steps = [refs[digest] for digest in job.path]
    start = steps[0].source if steps else job.plan.base
    params = None if steps and not start else _held(job, spec, start)
    for ref in steps:
        params = apply_blob(_stored(job.store / ref.digest), ref, spec, params)
    if params is None:
        raise WireError(f"no way to model {job.plan.base[:12]}", code="E-BLOB")
    return params


def _held(job: Job, spec: ModelSpec, digest: str) -> Params:
    path = job.store / f"{digest}.model"
    if path.exists():
        try:
            return read_snapshot(_stored(path), digest, spec)
        except WireError as exc:
            raise WireError(f"the file of model {digest[:12]}: {exc.message}", code="E-BLOB") from exc
    if digest == job.plan.initial:
        return initial(spec)
    raise WireError(f"model {digest[:12]} is not on this device", code="E-BLOB")


def _stored(path: Path) -> bytes:
    """Returns a file of the store; what is not there any more has to be fetched again."""
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise WireError(f"{path.name[:12]} is not in the store", code="E-BLOB", remedy="fetch it again") from exc


def _trunk(job: Job, spec: ModelSpec) -> Params:
    """Returns the tensors that never travel: from the trunk that the plan names, or from the spec's seed."""
    plan = job.plan
    return read_trunk(_stored(job.store / plan.trunk), plan.trunk, spec) if plan.trunk else frozen(spec)


def _trained(job: Job, spec: ModelSpec, base: Params, memory: Params, common: Common | None) -> Fit:
    """Returns what training gave; only here, and only if there are data, torch is loaded."""
    plan = job.plan
    key = (plan.seed, plan.round, job.device)
    if job.data.folder is None and dataset_of(plan.train.task) is None:
        from edge_agent.training.echo import echo  # noqa: PLC0415

        return Fit(echo(base, key), 1)
    import torch  # noqa: PLC0415

    from edge_agent.training.local_data import local_data  # noqa: PLC0415
    from edge_agent.training.trainer import fit  # noqa: PLC0415

    torch.set_num_threads(job.threads)
    data = common.examples(job.data, spec) if common else local_data(job.data, spec)
    settings = replace(plan.train, personal={**plan.train.personal, **job.own} if plan.train.personal else {})
    found = fit(base, spec, data, settings, key, memory=memory, still=_trunk(job, spec))
    for name, value in found.metrics.items():
        if not isfinite(value):
            raise Declined(f"{name} is {value}", code="E-NONFINITE", remedy="lower the learning rate; look at the data")
    return replace(found, metrics={name: round(value, 6) for name, value in found.metrics.items()})
