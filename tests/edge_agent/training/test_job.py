"""A job from end to end, in this process: what it reads from the store, and what it leaves in the outbox."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.config import DataConfig
from edge_agent.kept.outbox import entries
from edge_agent.training.child import answer
from edge_agent.training.job import Job, run_job
from models.archs import spec_of
from models.init import initial
from tests.edge_agent.boards import echo_spec, keep, plan, spec_bytes
from wire.errors import Declined, WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame
from wire.messages.blob import Downlink, delta_blob, snapshot_blob
from wire.messages.plan import encode_plan
from wire.messages.train import TrainSettings
from wire.messages.update import decode_update, read_header
from wire.params import params_digest

SPEC = echo_spec(300)
FOUR_BITS = Downlink(({"stage": "levels", "levels": 7},))
DIGITS = spec_of("mlp-8", (1, 8, 8), 10, 1)


@pytest.fixture
def job(tmp_path):
    """Returns a function that makes a job whose store holds the spec and the given blobs."""

    def make(asked=None, path=(), blobs=(), spec=SPEC, data=None, name="board"):
        asked = asked or plan(spec)
        store, outbox = tmp_path / name / "store", tmp_path / name / "outbox"
        outbox.mkdir(parents=True, exist_ok=True)
        keep(store, spec_bytes(spec))
        for blob in blobs:
            keep(store, blob)
        data = data or DataConfig(asked.train.task)
        memory = tmp_path / name / "memory"
        return Job("dev-1", store, outbox, memory, tuple(path), data, {}, 1, 123, asked)

    return make


def update_of(one, spec=SPEC):
    (entry,) = entries(one.outbox)
    frame = decode_frame(entry.path.read_bytes(), Kind.UPDATE)
    return read_header(frame), decode_update(frame, one.plan, spec)


def chain(rounds):
    """Returns the deltas of some rounds as (reference, bytes), and the model after each."""
    held, steps, models = initial(SPEC), [], []
    for number in range(rounds):
        wanted = {name: value + np.float32(0.3) for name, value in held.items()}
        ref, data, held = delta_blob(wanted, held, SPEC, FOUR_BITS, ("down", number))
        steps.append((ref, data))
        models.append(held)
    return steps, models


def test_leaves_an_update_that_the_plan_can_be_checked_against(job):
    one = job()
    result = run_job(one)
    header, tensors = update_of(one)
    assert (header.run, header.round, header.device) == ("run-1", 0, "dev-1")
    assert (header.base, header.kind, header.examples) == (one.plan.base, "delta", 1)
    assert result["metrics"] == header.metrics
    assert header.metrics["down_bytes"] == 123
    (entry,) = entries(one.outbox)
    assert (result["digest"], result["size"]) == (entry.digest, entry.size)
    moved = max(float(np.abs(values).max()) for values in tensors.values())
    assert 0 < moved <= 0.0051


def test_weights_are_base_and_change_together(job):
    run_job(one := job())
    run_job(other := job(plan(SPEC, kind="weights"), name="other"))
    change, weights = update_of(one)[1], update_of(other)[1]
    for name, value in initial(SPEC).items():
        np.testing.assert_allclose(weights[name], value + change[name], atol=1e-7)


def test_the_same_job_twice_gives_the_same_tensors(job):
    digits = plan(DIGITS, train=TrainSettings("digits", batch=16), stages=({"stage": "levels", "levels": 7},))
    data = DataConfig("digits", split="iid", parts=40, part=3, seed=1)
    found = []
    for name in ("first", "second"):
        one = job(digits, spec=DIGITS, data=data, name=name)
        run_job(one)
        found.append(update_of(one, DIGITS))
    assert {name: value.tobytes() for name, value in found[0][1].items()} == {
        name: value.tobytes() for name, value in found[1][1].items()
    }
    assert found[0][0].examples > 10
    assert found[0][0].metrics["loss_after"] < found[0][0].metrics["loss_before"]


def test_another_device_or_round_gives_other_tensors(job):
    found = []
    for name, changes in (("a", {}), ("b", {"round": 1}), ("c", {"seed": 2})):
        one = job(plan(SPEC, **changes), name=name)
        run_job(one)
        found.append(update_of(one)[1])
    one = replace(job(name="d"), device="dev-2")
    run_job(one)
    found.append(update_of(one)[1])
    assert len({params_digest(tensors) for tensors in found}) == 4


def test_deltas_and_snapshot_lead_to_the_same_update(job):
    steps, models = chain(3)
    snapshot, whole = snapshot_blob(models[-1], SPEC)
    asked = plan(SPEC, base=params_digest(models[-1]), blobs=(*(ref for ref, _ in steps), snapshot))
    by_deltas = job(asked, [ref.digest for ref, _ in steps], [data for _, data in steps], name="deltas")
    by_snapshot = job(asked, [snapshot.digest], [whole], name="snapshot")
    by_held = job(asked, [steps[2][0].digest], [steps[2][1]], name="held")
    second = params_digest(models[1])
    (by_held.store / f"{second}.model").write_bytes(snapshot_blob(models[1], SPEC)[1])
    found = []
    for one in (by_deltas, by_snapshot, by_held):
        run_job(one)
        found.append(params_digest(update_of(one)[1]))
        model = one.store / f"{asked.base}.model"
        assert model.read_bytes() == whole, "the base is kept: the next delta starts from it"
    assert len(set(found)) == 1


def test_snapshots_alone_keep_no_second_copy(job):
    params = {name: value + 1 for name, value in initial(SPEC).items()}
    ref, data = snapshot_blob(params, SPEC)
    one = job(plan(SPEC, base=params_digest(params), blobs=(ref,)), [ref.digest], [data])
    run_job(one)
    assert not list(one.store.glob("*.model"))


def failed(one):
    data = {"task": one.data.task, "folder": str(one.data.folder or ""), "split": "", "parts": 1, "part": 0, "seed": 0}
    header = {
        **{name: str(getattr(one, name)) for name in ("device", "store", "outbox", "memory")},
        "path": list(one.path),
        "personal": {},
        "threads": 1,
        "fetched_bytes": 0,
        "data": data,
    }
    frame: Frame = decode_frame(encode_frame(Kind.JOB, header, encode_plan(one.plan)), Kind.JOB)
    return answer(frame)


def test_a_spec_that_this_device_would_build_otherwise(job):
    other = replace(SPEC, trainable=(replace(SPEC.trainable[0], spread=0.5),))
    asked = replace(plan(SPEC), spec=plan(other).spec)
    one = job(asked)
    keep(one.store, spec_bytes(other))
    with pytest.raises(Declined) as caught:
        run_job(one)
    assert caught.value.code == "E-SPEC"
    assert failed(one)["code"] == "E-SPEC"
    assert "same version" in failed(one)["reason"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", json.dumps({"arch": "mlp"}).encode()])
def test_a_spec_that_is_none(job, text):
    one = job()
    one = replace(one, plan=replace(one.plan, spec=keep(one.store, text)))
    with pytest.raises(WireError, match=r"spec [0-9a-f]{12} cannot be read"):
        run_job(one)


@pytest.mark.parametrize("torn", [None, b"", b"\0" * 300])
@pytest.mark.parametrize("what", ["spec", "blob", "model"])
def test_what_a_power_cut_tore_is_fetched_anew(job, what, torn):
    (_, (ref, data)), models = chain(2)
    asked = plan(SPEC, base=params_digest(models[1]), blobs=(ref,))
    one = job(asked, [ref.digest], [data])
    model = one.store / f"{params_digest(models[0])}.model"
    model.write_bytes(snapshot_blob(models[0], SPEC)[1])
    path = {"spec": one.store / asked.spec, "blob": one.store / ref.digest, "model": model}[what]
    path.unlink()
    if torn is not None:
        path.write_bytes(torn)
    assert failed(one)["code"] == "E-BLOB"


def blob_cases():
    steps, models = chain(2)
    snapshot, whole = snapshot_blob(models[-1], SPEC)
    base = params_digest(models[-1])
    asked = plan(SPEC, base=base, blobs=(*(ref for ref, _ in steps), snapshot))
    wrong = bytearray(whole)
    wrong[100] ^= 1
    lying = replace(snapshot, target="0" * 64)
    return {
        "other bytes": (asked, [snapshot.digest], {snapshot.digest: bytes(wrong)}),
        "a step left out": (asked, [steps[1][0].digest], {steps[1][0].digest: steps[1][1]}),
        "no steps and no model": (replace(asked, blobs=()), [], {}),
        "another end": (replace(asked, blobs=(lying,), base="0" * 64), [snapshot.digest], {snapshot.digest: whole}),
    }


@pytest.mark.parametrize("case", blob_cases())
def test_a_base_that_cannot_be_built(job, case):
    asked, path, files = blob_cases()[case]
    one = job(asked, path)
    for digest, data in files.items():
        (one.store / digest).write_bytes(data)
    assert failed(one)["code"] == "E-BLOB"
    assert not entries(one.outbox)


def test_a_held_model_with_other_values(job):
    steps, models = chain(2)
    one = job(plan(SPEC, base=params_digest(models[1]), blobs=(steps[1][0],)), [steps[1][0].digest], [steps[1][1]])
    (one.store / f"{params_digest(models[0])}.model").write_bytes(snapshot_blob(models[1], SPEC)[1])
    assert failed(one)["code"] == "E-BLOB"


@pytest.mark.parametrize("epochs", [1, 10])
def test_a_loss_that_is_not_finite_is_no_update(job, epochs):
    steps = 4  # each makes the weights a million times as large: still finite, but no longer what they lead to
    wild = plan(DIGITS, train=TrainSettings("digits", batch=1438 // steps, rate=1e6, decay=1.0, epochs=epochs))
    result = failed(job(wild, spec=DIGITS, data=DataConfig("digits")))
    assert (result["code"], "loss_after is nan" in result["reason"]) == ("E-NONFINITE", True)


def test_a_folder_of_files_needs_no_package_of_the_task(job, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 1, 8, 8), np.float32), y=np.arange(6))
    asked = plan(DIGITS, train=TrainSettings("greenhouse", batch=2))
    one = job(asked, spec=DIGITS, data=DataConfig("greenhouse", folder=tmp_path))
    assert run_job(one)["metrics"]["loss_before"] > 0
    assert update_of(one, DIGITS)[0].examples == 6
    assert failed(job(asked, spec=DIGITS, data=DataConfig("greenhouse")))["code"] == "E-CONFIG"


def test_reasons_do_not_repeat_the_code(job):
    one = job(plan(DIGITS, train=TrainSettings("digits")), spec=DIGITS, data=DataConfig("digits", split=""))
    one = replace(one, data=DataConfig("digits", folder=one.outbox))
    result = failed(one)
    assert result["code"] == "E-DATA"
    assert not result["reason"].startswith("E-DATA")


def test_whatever_fails_has_a_name(job, monkeypatch):
    def fails(exc):
        def raising(job, examples):
            raise exc

        monkeypatch.setattr("edge_agent.training.child.run_job", raising)
        return failed(job())

    assert fails(MemoryError())["code"] == "E-MEMORY"
    assert fails(RuntimeError("no room for [3, 3]")) == {
        "code": "E-TRAIN",
        "reason": "RuntimeError: no room for [3, 3]",
    }
    assert len(fails(ValueError("x" * 9999))["reason"]) == 400
    missing = fails(ImportError("No module named 'torch'"))
    assert missing["code"] == "E-INSTALL"
    assert "torch" in missing["reason"]
