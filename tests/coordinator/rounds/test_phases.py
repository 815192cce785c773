from __future__ import annotations

from itertools import product

import pytest

from coordinator.rounds.phases import NEXT, Phase, advance, begin_round, last_round, say_why
from coordinator.state.database import open_database
from tests.coordinator.runs import RUN, ledger, new_run
from wire.errors import StateError

MOVES = {
    ("selection", "configuration"),
    ("configuration", "reporting"),
    ("reporting", "aggregation"),
    ("reporting", "abandoned"),
    ("aggregation", "evaluation"),
    ("aggregation", "abandoned"),
    ("evaluation", "published"),
}


@pytest.fixture
def database(tmp_path):
    database = new_run(tmp_path)
    yield database
    database.close()


def standing_in(database, phase):
    with database.change():
        begin_round(database, RUN, 0, "base")
        database.write("UPDATE rounds SET state = ?", phase.value)
    return last_round(database, RUN)


@pytest.mark.parametrize(("before", "after"), list(product(Phase, Phase)), ids=lambda phase: phase.value)
def test_only_these_moves(database, before, after):
    row = standing_in(database, before)
    if (before.value, after.value) in MOVES:
        with database.change():
            assert advance(database, row, after).phase is after
        assert last_round(database, RUN).phase is after
        return
    with pytest.raises(StateError, match=f"cannot go from {before.value} to {after.value}"), database.change():
        advance(database, row, after)
    assert last_round(database, RUN).phase is before


def test_over_is_where_nothing_leads_on():
    assert [phase.value for phase in Phase if not NEXT[phase]] == ["published", "abandoned"]


def test_every_move_is_a_line_in_the_ledger(database):
    with database.change():
        row = begin_round(database, RUN, 0, "base")
        row = advance(database, row, Phase.CONFIGURATION, devices=["a"])
        row = advance(database, row, Phase.REPORTING, plan=b"plan", plan_bytes=4)
    assert (row.phase, row.plan, row.over) == (Phase.REPORTING, b"plan", False)
    lines = ledger(database, "phase")
    assert [line["phase"] for line in lines] == ["selection", "configuration", "reporting"]
    assert (lines[0]["base"], lines[1]["devices"], lines[2]["plan_bytes"]) == ("base", ["a"], 4)
    assert last_round(database, RUN) == row


def test_the_plan_stays_with_the_round_and_the_reason_is_kept(database):
    row = standing_in(database, Phase.CONFIGURATION)
    with database.change():
        row = advance(database, row, Phase.REPORTING, plan=b"plan")
        row = advance(database, row, Phase.ABANDONED, reason="nobody came")
    assert last_round(database, RUN).plan == b"plan"
    assert database.row("SELECT reason FROM rounds")["reason"] == "nobody came"
    assert row.over


def test_the_newest_round_counts(database):
    assert last_round(database, RUN) is None
    with database.change():
        for number in (0, 1, 2):
            begin_round(database, RUN, number, "base")
    assert last_round(database, RUN).number == 2
    assert last_round(database, "another") is None


@pytest.mark.parametrize("statement", ["UPDATE ledger SET event = 'x'", "DELETE FROM ledger", "REPLACE INTO ledger "])
def test_the_ledger_only_grows(database, statement):
    with database.change():
        database.note("one", RUN, value=1)
    if statement.startswith("REPLACE"):
        statement += "SELECT seq, at, run, round, device, 'x', body FROM ledger"
    before = list(database.ledger(RUN))
    with pytest.raises(StateError, match="the ledger only grows"), database.change():
        database.write(statement)
    assert list(database.ledger(RUN)) == before


def test_why_a_round_waits_is_kept_until_it_moves_on_and_is_no_line_of_the_ledger(database):
    with database.change():
        row = begin_round(database, RUN, 0, "base")
    lines = len(list(database.ledger(RUN)))
    with database.change():
        say_why(database, row, "nobody is here")
    assert (last_round(database, RUN).reason, len(list(database.ledger(RUN)))) == ("nobody is here", lines)
    with database.change():
        advance(database, row, Phase.CONFIGURATION)
    assert last_round(database, RUN).reason == ""


def test_a_change_is_whole_or_not_at_all(database):
    with pytest.raises(RuntimeError), database.change():
        begin_round(database, RUN, 0, "base")
        raise RuntimeError
    assert last_round(database, RUN) is None
    assert not ledger(database, "phase")


def test_a_full_disk_is_said_and_the_change_is_undone(database):
    """SQLite undoes a change by itself when the disk is full: a ROLLBACK of ours would be one too many."""
    before = list(database.ledger(RUN))
    database.link.execute("PRAGMA max_page_count = 30")
    with pytest.raises(StateError, match="full") as said, database.change():
        for _ in range(1000):
            database.note("long", RUN, text="y" * 500)
    assert "resume" in said.value.remedy
    assert list(database.ledger(RUN)) == before
    database.link.execute("PRAGMA max_page_count = 100000")
    with database.change():
        database.note("short", RUN)
    assert len(list(database.ledger(RUN))) == len(before) + 1


def test_the_ledger_from_a_line_on(database):
    with database.change():
        for number in range(3):
            database.note("one", RUN, number)
    first, *rest = database.ledger(RUN)
    assert list(database.ledger(RUN, first["seq"])) == rest


@pytest.mark.parametrize("table", ["updates", "refused"])
def test_whether_an_update_is_known_is_found_by_an_index(database, table):
    plan = database.rows(f"EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE device = ? AND digest = ?", "a", "b")
    assert [row["detail"] for row in plan] == [f"SEARCH {table} USING INDEX {table}_by_digest (device=? AND digest=?)"]


def test_nothing_is_written_outside_a_change(database):
    with pytest.raises(StateError, match="outside a transaction"):
        begin_round(database, RUN, 0, "base")
    with pytest.raises(StateError, match="outside a transaction"):
        database.note("one", RUN)


def test_what_is_not_a_number_does_not_reach_the_ledger(database):
    with pytest.raises(ValueError, match="JSON"), database.change():
        database.note("evaluated", RUN, loss=float("nan"))


def test_it_is_on_the_disk_for_others_to_read(database, tmp_path):
    with database.change():
        begin_round(database, RUN, 0, "base")
    reader = open_database(tmp_path / "fleet.sqlite", read_only=True)
    assert last_round(reader, RUN).number == 0
    with pytest.raises(StateError, match="readonly"), reader.change():
        begin_round(reader, RUN, 1, "base")
    reader.close()


@pytest.mark.parametrize("content", [None, b"", b"this is no database, whatever its name says" * 50])
def test_what_is_no_database(tmp_path, content):
    path = tmp_path / "what #1 100%.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StateError, match="name the folder that"):
        open_database(path, read_only=True)


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "run #1? 100% düse"
    folder.mkdir()
    new_run(folder).close()
    reader = open_database(folder / "fleet.sqlite", read_only=True)
    assert reader.row("SELECT run FROM runs")["run"] == RUN
    reader.close()
