"""A roll-out in the process of a run: the run's model is the same, each has its own bytes, and no fault goes over."""

from __future__ import annotations

import pytest

from coordinator.home import open_home
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.shown import facts_of
from tests.coordinator.rollout.boards import TOPICS, Scene
from tests.coordinator.rollout.conftest import RUN
from wire.messages.reports import Ask, encode_ask
from wire.transport import Unsent


def finish_run(made):
    """Goes on until the run is over; returns the digest of its model."""
    for _ in range(5000):
        made.turn()
        if made.host.run.over:
            return made.model
    raise AssertionError("the run came to no end")


def undisturbed(folder):
    with open_home(folder / "undisturbed", durable=False) as home:
        made = Scene(home, folder, {}, RUN)
        made.open()
        return finish_run(made)


def fault(made):
    facts = facts_of(RolloutBook(made.home.database), made.name)
    return facts["fault"], facts["wish"]


def run_lines(made, event):
    (row,) = made.home.database.rows("SELECT run FROM runs")
    return [dict(line) for line in made.home.database.ledger(row["run"]) if line["event"] == event]


def ask(made, device, digest, spans=((0, 7),)):
    made.hub.route(TOPICS.device(device, "ask"), encode_ask(Ask("blob", digest, spans=spans)), False)
    made.turn()


def test_both_come_to_their_end_and_the_model_is_the_same(scene, tmp_path):
    made = scene(*["healthy"] * 4, beside=True)
    assert made.run() == "done"
    assert finish_run(made) == undisturbed(tmp_path)
    assert run_lines(made, "refused") == []


def test_a_roll_out_that_begins_in_the_middle_is_taken_up_within_a_second(scene, tmp_path):
    made = scene("healthy", "unfit", beside=True)
    made.open()
    while made.host.run.state.number < 1:
        made.turn()
    made.start()
    made.clock_s += 1.0
    assert made.finish() == "done"
    assert made.outcomes() == {"dev-0": "healthy", "dev-1": "unfit"}
    assert finish_run(made) == undisturbed(tmp_path)


def test_bytes_are_booked_to_the_one_they_belong_to(scene):
    made = scene("healthy", "healthy", beside=True)
    made.run()
    for lines, names in ((run_lines(made, "traffic"), "trainer-"), (made.noted("traffic"), "dev-")):
        devices = {device for line in lines for way in ("up", "down") for device in line[way]}
        assert devices and all(device.startswith(names) for device in devices)
    whole = sum(len(data) for data in made.boards["dev-0"].got.values())
    assert facts_of(RolloutBook(made.home.database), made.name)["bytes_down"] >= 2 * whole


def test_a_question_is_answered_by_whoever_has_the_blob_and_counts_there_only(scene):
    made = scene("stuck", "silent", beside=True)
    made.start()
    made.open()
    made.settle()
    manifest, state = made.desk.offer.manifest, made.host.run.state
    ask(made, "dev-0", manifest)
    ask(made, "dev-0", manifest, ((0, 1 << 39),))
    assert (run_lines(made, "refused"), made.desk.refusals) == ([], {("dev-0", "ask"): 1})
    ask(made, "dev-1", manifest)  # it was not offered yet: it waits, and nobody refuses it
    ask(made, "dev-1", state.planner.spec_digest)
    assert run_lines(made, "refused") == []
    ask(made, "dev-1", "b" * 64)
    assert [(line["device"], line["code"]) for line in run_lines(made, "refused")] == [("dev-1", "E-BLOB")]
    for _ in range(40):
        made.hub.route(TOPICS.device("dev-0", "model"), b"garbage", False)
    made.settle()
    assert made.desk.refusals == {("dev-0", "ask"): 1, ("dev-0", "model"): 20}
    assert len(run_lines(made, "refused")) == 1


def damage_manifest(made):
    row = RolloutBook(made.home.database).versions()[-1]
    (made.home.shelf / row["digest"]).write_bytes(b"rotten")


def lose_golden(made):
    for path in made.home.shelf.iterdir():
        if path.name != RolloutBook(made.home.database).versions()[-1]["digest"]:
            path.unlink()


def wrong_row(made):
    made.home.database.link.execute("UPDATE rollouts SET stage_s = 'soon'")


FAULTS = {
    "a damaged shelf": (damage_manifest, "holds other bytes"),
    "a blob that is gone": (lose_golden, "is not there any more"),
    "a wish without words": (lambda made: made.wish(" "), "ValueError"),
    "a row that makes no sense": (wrong_row, "TypeError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_neither_the_run_nor_the_process_and_is_shown(scene, tmp_path, name):
    break_it, said = FAULTS[name]
    made = scene("healthy", "healthy", beside=True)
    made.start()
    break_it(made)
    made.open()
    assert finish_run(made) == undisturbed(tmp_path)
    made.settle()
    assert made.host.desk is None
    assert said in fault(made)[0]
    assert fault(made)[1] == ""
    assert [line["reason"] for line in made.noted("fault")] == [fault(made)[0]]
    ask(made, "dev-0", RolloutBook(made.home.database).versions()[-1]["digest"])
    assert run_lines(made, "refused") == []  # it waits for a person


def test_what_was_mended_goes_on_when_a_person_resumes(scene):
    made = scene("healthy", beside=True)
    made.start()
    path = made.home.shelf / RolloutBook(made.home.database).versions()[-1]["digest"]
    whole = path.read_bytes()
    path.write_bytes(b"rotten")
    made.open()
    made.settle()
    path.write_bytes(whole)
    made.settle()
    assert made.host.desk is None
    made.wish("resume")
    made.settle()
    assert (made.desk.rollout.status, fault(made)) == ("done", ("", ""))


def test_a_newer_roll_out_takes_the_place_of_one_that_was_left_alone(scene):
    made = scene("healthy", beside=True)
    made.start()
    made.wish(" ")
    made.open()
    made.settle()
    with made.home.database.change():
        made.home.database.write("UPDATE rollouts SET status = 'aborted'")
    made.start()
    made.settle()
    assert (made.desk.rollout.version, made.desk.rollout.status) == (2, "done")


def test_an_acl_of_before_ends_the_roll_out_and_not_the_run(scene, tmp_path):
    made = scene("healthy", beside=True)
    made.start()
    made.open().post.transport.inbox.append(Unsent(0, TOPICS.device("+", "model"), 0x87, "Not authorized"))
    assert finish_run(made) == undisturbed(tmp_path)
    made.settle()
    assert "ACL" in fault(made)[0]
