from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from edge_agent.config import DataConfig, TrainConfig
from edge_agent.work import Work
from edge_agent.worker import KILLED, Result
from models.init import initial
from tests.edge_agent.boards import config, echo_spec, keep, plan, spec_bytes
from wire.errors import Declined, WireError
from wire.messages.blob import Downlink, delta_blob, digest_bytes, snapshot_blob
from wire.messages.chain import encode_chain
from wire.messages.plan import encode_plan
from wire.params import params_digest
from wire.pieces.chunks import Chunk

SPEC = echo_spec()


@dataclass
class Notes:
    """A worker that notes what it is given."""

    jobs: list = field(default_factory=list)

    def start(self, header, plan):
        self.jobs.append((header, plan))


def begun(store, asked=None):
    asked = asked or plan(SPEC)
    return Work.begin(asked, encode_plan(asked), store, 5.0)


def test_begins_with_what_is_lacking(tmp_path):
    work = begun(tmp_path)
    assert work.asked == (plan(SPEC).spec,)
    assert (work.training, work.tries) == (False, 0)
    assert work.fetch.overdue_s(5.0) == 2.0


def test_the_job_says_all_that_the_child_needs(tmp_path):
    store = tmp_path / "store"
    keep(store, spec_bytes(SPEC))
    work, worker = begun(store), Notes()
    data = DataConfig("echo", tmp_path / "readings", "iid", 4, 2, 9, 120)
    work.start(worker, config(tmp_path, data=data, train=TrainConfig(threads=3)), store, tmp_path / "outbox")
    ((header, frame),) = worker.jobs
    assert frame == encode_plan(plan(SPEC))
    assert (header["device"], header["threads"], header["path"]) == ("dev-1", 3, [])
    assert (header["store"], header["outbox"]) == (str(store), str(tmp_path / "outbox"))
    folder = str(tmp_path / "readings")
    shared = {"split": "iid", "parts": 4, "part": 2, "seed": 9, "examples": 120, "held_out": 0.0}
    assert header["data"] == {"task": "echo", "folder": folder, **shared}
    assert header["durable"] is True
    assert (work.fetch, work.training, work.tries) == (None, True, 1)


def test_a_result_ends_the_work(tmp_path):
    work = begun(tmp_path)
    work.training = True
    assert work.finished(Result("d" * 64, 100), 3) == ("d" * 64, 100)
    assert not work.training


def test_a_killed_child_is_tried_again_until_the_attempts_are_spent(tmp_path):
    keep(tmp_path, spec_bytes(SPEC))
    work, worker, killed = begun(tmp_path), Notes(), Result(code=KILLED, reason="killed by SIGKILL")
    for _ in range(2):
        work.start(worker, config(tmp_path), tmp_path, tmp_path)
        assert work.finished(killed, 3) is None
        work.restart(tmp_path, 0.0)
        assert work.fetch.complete
    work.start(worker, config(tmp_path), tmp_path, tmp_path)
    with pytest.raises(Declined, match="E-TRAIN-KILLED: killed by SIGKILL"):
        work.finished(killed, 3)
    assert len(worker.jobs) == 3


@pytest.mark.parametrize("code", ["E-DATA", "E-SPEC", "E-MEMORY", "E-INSTALL", "E-NONFINITE"])
def test_what_trying_again_cannot_mend_is_declined_at_once(tmp_path, code):
    with pytest.raises(Declined) as caught:
        begun(tmp_path).finished(Result(code=code, reason="why"), 3)
    assert (caught.value.code, caught.value.message) == (code, "why")


def test_a_wrong_blob_empties_the_store_and_fetches_anew(tmp_path):
    params = {name: value + 1 for name, value in initial(SPEC).items()}
    ref, data = snapshot_blob(params, SPEC)
    keep(tmp_path, data)
    keep(tmp_path, spec_bytes(SPEC))
    work, worker = begun(tmp_path, replace(plan(SPEC), base=params_digest(params), blobs=(ref,))), Notes()
    work.start(worker, config(tmp_path), tmp_path, tmp_path)
    assert worker.jobs[0][0]["path"] == [ref.digest]
    assert work.finished(Result(code="E-BLOB", reason="other bytes"), 3) is None
    work.restart(tmp_path, 100.0)
    assert set(work.asked) == {ref.digest, plan(SPEC).spec}
    assert work.fetch.overdue_s(100.0) <= 0
    assert not list(tmp_path.iterdir())


def test_bytes_fetched_for_a_try_that_failed_are_counted_too(tmp_path):
    work, worker = begun(tmp_path), Notes()
    for _ in range(2):
        data = spec_bytes(SPEC)
        work.fetch.take(Chunk(plan(SPEC).spec, len(data), 0, memoryview(data)), 0.0)
        work.start(worker, config(tmp_path), tmp_path, tmp_path)
        assert work.finished(Result(code="E-BLOB"), 3) is None
        work.restart(tmp_path, 0.0)
    assert [header["fetched_bytes"] for header, _ in worker.jobs] == [len(data), 2 * len(data)]


def test_no_way_to_the_base_is_known_before_anything_is_asked(tmp_path):
    with pytest.raises(WireError, match="E-BLOB"):
        begun(tmp_path, replace(plan(SPEC), base="0" * 64))


def test_tidy_keeps_what_the_next_round_may_build_upon(tmp_path):
    snapshot, data = snapshot_blob(initial(SPEC), SPEC)
    keep(tmp_path, data)
    keep(tmp_path, spec_bytes(SPEC))
    old = keep(tmp_path, b"an older blob")
    (tmp_path / f"{plan(SPEC).base}.model").write_bytes(b"")
    (tmp_path / f"{'0' * 64}.model").write_bytes(b"")
    work = begun(tmp_path, replace(plan(SPEC), blobs=(snapshot,)))
    work.tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        plan(SPEC).spec,
        snapshot.digest,
        f"{plan(SPEC).base}.model",
    }
    assert old not in {path.name for path in tmp_path.iterdir()}


def test_a_restart_in_the_middle_of_the_chain_keeps_what_leads_along_it(tmp_path):
    models, steps = [initial(SPEC)], []
    for number in range(6):
        wanted = {name: values + np.float32(0.25) for name, values in models[-1].items()}
        ref, data, reached = delta_blob(
            wanted, models[-1], SPEC, Downlink(({"stage": "levels", "levels": 7},)), (number,)
        )
        models.append(reached)
        steps.append((ref, data))
    refs = [ref for ref, _ in steps]
    snapshot, _ = snapshot_blob(models[-1], SPEC)
    chain = encode_chain(refs[:2])
    asked = replace(
        plan(SPEC),
        base=params_digest(models[-1]),
        initial=params_digest(models[0]),
        blobs=(*refs[2:], replace(snapshot, size=1 << 20)),
        chain=digest_bytes(chain),
        chain_bytes=len(chain),
    )
    keep(tmp_path, spec_bytes(SPEC))
    assert set(begun(tmp_path, asked).fetch.wanted) == {asked.chain}  # the snapshot is not asked for yet
    keep(tmp_path, chain)
    keep(tmp_path, steps[0][1])
    again = begun(tmp_path, asked)
    assert not again.fetch.follows
    assert again.fetch.path == tuple(ref.digest for ref in refs)
    assert set(again.fetch.wanted) == {ref.digest for ref in refs[1:]}
