"""The roll-out's state machine: cases one by one, and what must hold whatever devices and people do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.rollout.stages import OVER, STAGES, Member, Rollout, begun, hear, obey, proceed, rested
from wire.messages.rollout import Found, ModelReport

VERSION, SHORT = 5, Found("int8-8", False, "E-MEMORY: x")
SAID = {
    "fetching": ModelReport("fetching", VERSION, healthy=4, active=4, staged=4),
    "staged": ModelReport("staged", VERSION, VERSION, 4, 4),
    "active": ModelReport("active", VERSION, VERSION, VERSION, 4),
    "healthy": ModelReport("healthy", VERSION, VERSION, VERSION, VERSION, "int8-4", 4.0),
    "refused": ModelReport("refused", VERSION, 4, 4, 4, code="E-MODEL-GOLDEN"),
    "rolled-back": ModelReport("rolled-back", VERSION, VERSION, 4, 4, code="E-MODEL-NAN"),
    "unfit": ModelReport("refused", VERSION, 4, 4, 4, code="E-MODEL-POLICY"),
    "small": ModelReport("refused", VERSION, code="E-MEMORY", found=(SHORT,)),
    "broken": ModelReport("refused", VERSION, code="E-MEMORY", found=(Found("a", False, "E-MODEL-CRASH: x"), SHORT)),
    "poor": ModelReport("refused", VERSION, 4, 4, 4, code="E-MODEL-ACCURACY"),
    "pinned": ModelReport("pinned", VERSION, 4, 4, 4),
    "old": ModelReport("healthy", 4, 4, 4, 4),
    "liar": ModelReport("refused", VERSION, VERSION, VERSION, VERSION, code="E-MODEL-GOLDEN"),
}


def fresh(count: int, **more) -> Rollout:
    return proceed(Rollout("r", VERSION, tuple(Member(f"d{n}") for n in range(count)), **more), 0.0)


def after(rollout: Rollout, *said: str, now_s: float = 0.0) -> Rollout:
    """Returns the roll-out after reports such as "0 healthy"."""
    for one in said:
        device, word = one.split()
        rollout = proceed(hear(rollout, f"d{device}", SAID[word]), now_s)
    return rollout


def offered(rollout: Rollout) -> str:
    return "".join(str(member.stage) if member.stage >= 0 else "-" for member in rollout.members)


def test_canary_then_a_third_then_all():
    rollout = fresh(7)
    assert (offered(rollout), rollout.status) == ("0------", "running")
    rollout = after(rollout, "0 healthy")
    assert offered(rollout) == "011----"
    rollout = after(rollout, "2 healthy")
    assert offered(rollout) == "011----"
    rollout = after(rollout, "1 healthy")
    assert offered(rollout) == "0112222"
    rollout = after(rollout, *(f"{n} healthy" for n in range(3, 6)))
    assert rollout.status == "running"
    assert after(rollout, "6 healthy").status == "done"


@pytest.mark.parametrize(
    ("count", "stages"), [(1, "0"), (2, "02"), (3, "022"), (4, "0122"), (6, "012222"), (10, "0111222222")]
)
def test_sizes_of_the_stages(count, stages):
    rollout = fresh(count)
    for _ in range(count):
        rollout = after(rollout, *(f"{n} healthy" for n, at in enumerate(offered(rollout)) if at != "-"))
    assert (offered(rollout), rollout.status) == (stages, "done")


@pytest.mark.parametrize("word", ["fetching", "staged", "active", "old"])
def test_installed_is_not_healthy(word):
    assert offered(after(fresh(3), f"0 {word}")) == "0--"


def test_facts_and_phase_must_agree():
    assert after(fresh(3), "0 liar").members[0].outcome == "failed"
    half = replace(SAID["healthy"], active=4)
    assert hear(fresh(3), "d0", half).members[0].outcome == ""


def test_a_third_of_the_ends_failed():
    rollout = after(fresh(10), "0 healthy", "1 healthy", "2 refused")
    assert (rollout.status, rollout.stage) == ("stopped", 1)
    assert rollout.reason == "1 of 3 devices that came to an end failed: d2 (E-MODEL-GOLDEN)"
    assert rollout == obey(rollout, "resume", 9.0) == obey(rollout, "abort", 9.0) == proceed(rollout, 1e9)


def test_less_than_a_third_is_held_for_a_person():
    rollout = after(fresh(10), "0 healthy", "1 healthy", "3 healthy", "2 rolled-back")
    assert (rollout.status, rollout.reason) == ("held", "failed: d2 (E-MODEL-NAN)")
    assert offered(rollout) == "0111------"
    again = proceed(obey(rollout, "resume", 1.0), 1.0)
    assert again.status == "held"
    on = proceed(obey(rollout, "resume failed", 1.0), 1.0)
    assert (on.status, offered(on)) == ("running", "0111222222")


def test_one_failure_alone_stops_nothing_and_lets_nothing_on():
    rollout = after(fresh(5), "0 refused")
    assert (rollout.status, offered(rollout)) == ("held", "0----")
    second = proceed(obey(rollout, "resume failed", 0.0), 0.0)
    assert offered(second) == "00---"
    assert after(second, "1 healthy").status == "stopped"  # one of two


def test_once_failed_is_failed_until_a_person_resumes():
    rollout = after(fresh(10), "0 healthy", "1 healthy", "3 healthy", "2 refused", "2 healthy")
    assert (rollout.members[2].outcome, rollout.status) == ("failed", "held")
    assert offered(proceed(obey(rollout, "resume", 0.0), 0.0)) == "0111222222"


def test_healthy_and_then_rolled_back_is_failed():
    rollout = after(fresh(4), "0 healthy", "0 rolled-back")
    assert rollout.members[0].outcome == "failed"
    assert after(rollout, "1 healthy").status == "stopped"


def test_who_cannot_have_it_is_in_nobodys_way():
    rollout = after(fresh(4), "0 unfit")
    assert offered(rollout) == "00--"
    rollout = after(rollout, "1 pinned")
    assert offered(rollout) == "000-"
    rollout = after(rollout, "2 healthy")
    assert offered(rollout) == "0002"
    rollout = after(rollout, "3 healthy")
    assert (rollout.status, [m.outcome for m in rollout.members]) == ("done", ["unfit", "pinned", "healthy", "healthy"])


def test_small_boards_stop_nothing_and_are_taken_once_they_have_room():
    rollout = after(fresh(4), "0 small", "1 small", "2 healthy")
    assert (rollout.status, [m.outcome for m in rollout.members]) == ("running", ["unfit", "unfit", "healthy", ""])
    assert after(rollout, "3 healthy").status == "done"
    assert after(rollout, "0 healthy").members[0].outcome == "healthy"
    assert after(fresh(2), "0 broken").members[0].outcome == "failed"  # memory was short for the other variants only
    looking = after(fresh(3), "0 small", *["0 fetching"] * 2)
    assert (looking.members[0].outcome, looking.members[0].changes, offered(looking)) == ("unfit", 1, "00-")
    assert begun(after(looking, "0 staged").members[0], VERSION)


def test_a_model_that_devices_measure_as_bad_is_stopped():
    rollout = after(fresh(6), "0 poor")
    assert (rollout.status, rollout.reason) == ("held", "failed: d0 (E-MODEL-ACCURACY)")
    on = proceed(obey(rollout, "resume failed", 0.0), 0.0)
    assert after(on, "1 healthy").status == "stopped"


def test_nobody_can_have_it():
    rollout = after(fresh(2), "0 unfit", "1 unfit")
    assert rollout.status == "stopped"
    assert rollout.reason == "no device can have the model: d0 (E-MODEL-POLICY), d1 (E-MODEL-POLICY)"


def test_the_silent_are_late_and_not_failed():
    rollout = after(fresh(3, stage_s=10.0), "0 fetching")
    assert proceed(rollout, 9.9).status == "running"
    late = proceed(rollout, 10.0)
    assert (late.status, late.reason) == ("held", "no end within 10 s: d0 (late, fetching)")
    assert late.members[0].outcome == ""
    on = proceed(obey(late, "resume late", 20.0), 20.0)
    assert offered(on) == "00-"
    on = after(on, "1 healthy", now_s=21.0)
    assert offered(on) == "002"
    done = after(on, "2 healthy", now_s=22.0)
    assert (done.status, done.members[0].late) == ("done", True)
    assert not begun(done.members[0], VERSION)
    back = proceed(obey(late, "resume", 20.0), 20.0)
    assert (back.status, back.members[0].late, proceed(back, 30.0).status) == ("running", False, "held")


def test_the_late_who_answer_after_all_count():
    late = proceed(fresh(3, stage_s=10.0), 11.0)
    heard = hear(late, "d0", SAID["healthy"])
    assert (heard.members[0].outcome, heard.members[0].late) == ("healthy", False)
    assert offered(proceed(obey(heard, "resume", 12.0), 12.0)) == "022"


def test_after_the_end_reports_are_heard_and_outcomes_stay():
    rollout = after(fresh(3, stage_s=10.0, without=frozenset({"late"})), "0 healthy", "1 healthy")
    done = proceed(rollout, 11.0)
    assert (done.status, done.members[2].late) == ("done", True)
    later = after(done, "1 rolled-back", "2 fetching")
    assert (later.members[1].outcome, later.members[1].report.phase) == ("healthy", "rolled-back")
    assert (later.members[2].outcome, later.members[2].late) == ("", True)
    there = after(later, "2 healthy", "1 healthy")
    assert [(m.outcome, m.late, m.report.phase) for m in there.members] == [("healthy", False, "healthy")] * 3
    assert there.status == "done"
    stopped = after(fresh(2), "0 unfit", "1 unfit", "1 healthy")
    assert (stopped.status, stopped.members[1].outcome, stopped.members[1].report.phase) == (
        "stopped", "unfit", "healthy"
    )  # fmt: skip


def test_pause_holds_new_offers_and_the_stop_rule_stays():
    paused = after(obey(fresh(4), "pause", 0.0), "0 healthy")
    assert (paused.status, offered(paused)) == ("paused", "0---")
    assert offered(proceed(obey(paused, "resume", 1.0), 1.0)) == "01--"
    started = after(fresh(4), "0 healthy")
    assert after(obey(started, "pause", 0.0), "1 refused").status == "stopped"


def test_abort_ends_it_wherever_it_is():
    for rollout in (fresh(3), obey(fresh(3), "pause", 0.0), after(fresh(3), "0 refused")):
        ended = obey(rollout, "abort", 0.0)
        assert (ended.status, ended.over) == ("aborted", True)
        assert proceed(ended, 1e9) == ended


def test_a_canary_that_loses_the_model_again_has_to_get_it_back():
    rollout = after(fresh(7, without=frozenset({"late"}), stage_s=10.0), "0 healthy", "0 fetching")
    assert offered(rollout) == "011----"
    rollout = after(rollout, "1 healthy", "2 healthy")
    assert offered(rollout) == "011----"
    lost = after(fresh(7, without=frozenset({"late"}), stage_s=10.0), "0 healthy", "0 fetching")
    assert offered(proceed(lost, 11.0)) == "0111---"  # one new canary: nobody is healthy any more


def test_a_device_that_never_comes_to_rest_has_failed():
    rollout = fresh(4)
    for turn in range(300):
        rollout = hear(rollout, "d0", SAID["staged" if turn % 2 else "fetching"])
    assert (rollout.members[0].outcome, rollout.members[0].changes) == ("failed", 200)
    assert proceed(rollout, 0.0).status == "held"
    assert hear(rollout, "d0", SAID["healthy"]) == rollout
    heard = hear(rested(rollout), "d0", SAID["healthy"]).members[0]
    assert (heard.report, heard.outcome, heard.changes) == (SAID["healthy"], "failed", 1)


@pytest.mark.parametrize(
    ("word", "has"),
    [("fetching", False), ("staged", True), ("active", True), ("healthy", True)]
    + [(word, False) for word in ("refused", "rolled-back", "unfit", "pinned", "liar")],
)
def test_who_has_begun_keeps_the_offer(word, has):
    assert begun(after(fresh(2), f"0 {word}").members[0], VERSION) == has
    assert not begun(Member("x", 0), VERSION)


WISHES = ("pause", "resume", "resume late", "resume failed", "resume late failed", "abort")
MOVES = st.tuples(st.integers(0, 7), st.sampled_from([*SAID] * 2 + ["healthy"] * 8)) | st.sampled_from(
    [1.0, 5.0, 11.0, *WISHES[:3]]
)


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 8), st.lists(MOVES | st.sampled_from(WISHES), max_size=40))
def test_whatever_happens(count, moves):
    """No stage before the one before is healthy; nothing after the stop rule; nothing new while it rests."""
    rollout, now_s = fresh(count, stage_s=10.0), 0.0
    for move in moves:
        if isinstance(move, float):
            now_s += move
            heard = rollout
        elif isinstance(move, str):
            heard = obey(rollout, move, now_s)
        else:
            heard = hear(rollout, f"d{move[0]}", SAID[move[1]])
            if move[0] >= count or rollout.members[move[0]].stage < 0:
                assert heard == rollout
        now = proceed(heard, now_s)
        if rollout.over:
            check_after_the_end(rollout, now)
        else:
            check_move(heard, now)
        rollout = now


def check_after_the_end(before: Rollout, now: Rollout) -> None:
    """Nothing is decided any more, and who came to an end stays with it; only reports are new."""
    assert replace(now, members=()) == replace(before, members=())
    for old, new in zip(before.members, now.members, strict=True):
        assert new.stage == old.stage
        assert new.outcome == old.outcome or not old.outcome
        assert not new.late or old.late


def check_move(heard: Rollout, now: Rollout) -> None:
    assert now.status in ("running", "paused", "held", *OVER) and 0 <= now.stage < len(STAGES)
    ended = [m.outcome for m in now.members if m.outcome in ("healthy", "failed")]
    failed = ended.count("failed")
    if len(ended) >= 2 and 3 * failed >= len(ended):
        assert now.status in OVER
    new = [m for old, m in zip(heard.members, now.members, strict=True) if old.stage < 0 <= m.stage]
    assert all(m.stage < 0 or m.stage <= now.stage for m in now.members)
    assert all(not m.outcome and m.report is None for m in now.members if m.stage < 0)
    if new:
        assert now.status == heard.status == "running"
    gone = {"unfit", "pinned"} | ({"failed"} if "failed" in now.without else set())
    before = [m for m in now.members if m.stage >= 0 and m not in new and m.outcome not in gone]
    before = [m for m in before if not (m.late and "late" in now.without)]
    if new and now.stage > 0:
        assert all(m.outcome == "healthy" for m in before if m.stage < now.stage), (heard, now)
    if new and not any(m.outcome == "healthy" for m in before):
        assert len(new) == 1 and not before
    if now.status == "done":
        assert before and all(m.outcome == "healthy" for m in before)
        assert all(m.stage >= 0 for m in now.members)
