"""The commands that `bitfleet rollout` names to go on with: with the options that were given, and only where true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.__main__ import main
from coordinator.front import rollouts
from coordinator.home import open_home
from coordinator.rollout.book import RolloutBook
from tests.coordinator.rollout.boards import FLEET, Scene
from tests.coordinator.rollout.exports import make_export

BROKER = ["--broker", "mqtt://127.0.0.1:1"]


@pytest.fixture
def home(tmp_path):
    """A home, with a space in its path, whose one roll-out is over."""
    with open_home(tmp_path / "my home", durable=False, fleet=FLEET) as home:
        made = Scene(home, tmp_path, {"dev-0": "healthy"})
        assert made.run() == "done"
        yield home


def ended(monkeypatch, home, **state):
    """Has every roll-out end like this."""
    rollout = RolloutBook(home.database).load(RolloutBook(home.database).newest())
    late = state.pop("late", False)
    members = tuple(replace(member, late=late) for member in rollout.members)
    rollout = replace(rollout, members=members, **state)
    monkeypatch.setattr(rollouts, "run_rollout", lambda *_: rollout)


def started(capsys, home, tmp_path):
    words = [make_export(tmp_path / "export"), "--home", home.folder, "--fleet", FLEET, *BROKER, "--devices", "dev-0"]
    code = main(["rollout", "start", *map(str, words)])
    return code, capsys.readouterr().err


def test_late_devices_are_served_where_they_are(home, capsys, monkeypatch, tmp_path):
    ended(monkeypatch, home, late=True)
    code, err = started(capsys, home, tmp_path)
    command = f"bitfleet rollout serve --home '{home.folder}' {' '.join(BROKER)}"
    assert (code, f"dev-0 still may take it: `{command}` stays" in err) == (0, True), err


def test_what_is_held_goes_on_where_it_is(home, capsys, monkeypatch, tmp_path):
    ended(monkeypatch, home, status="held", reason="late")
    code, err = started(capsys, home, tmp_path)
    place = f"--home '{home.folder}' {' '.join(BROKER)}"
    assert code == 1
    assert f"`bitfleet rollout resume --continue-without-late {place}` (or -failed)" in err
    assert f"or `bitfleet rollout abort {place}`" in err


def test_a_stop_promises_to_go_on_only_with_what_was_entered(home, capsys, monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rollouts, "start_rollout", interrupt)
        assert started(capsys, home, tmp_path) == (130, "bitfleet: stopped; nothing was begun\n")

    def begin_and_stop(serving, begin, look):
        begin(home)
        raise KeyboardInterrupt

    monkeypatch.setattr(rollouts, "run_rollout", begin_and_stop)
    code, err = started(capsys, home, tmp_path)
    command = f"bitfleet rollout resume --home '{home.folder}' {' '.join(BROKER)}"
    assert (code, err) == (130, f"bitfleet: stopped; `{command}` goes on where it was\n")


@pytest.mark.parametrize(("words", "fleet"), [([], FLEET), (["--fleet", "other"], "other")])
def test_serve_takes_the_fleet_of_the_newest_roll_out(home, monkeypatch, words, fleet):
    served = []
    monkeypatch.setattr(rollouts, "serve_rollouts", served.append)
    assert main(["rollout", "serve", "--home", str(home.folder), *words]) == 0
    assert [serving.fleet for serving in served] == [fleet]


def test_serve_without_a_roll_out_waits_for_the_usual_fleet(tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(rollouts, "serve_rollouts", served.append)
    assert main(["rollout", "serve", "--home", str(tmp_path / "new")]) == 0
    assert [serving.fleet for serving in served] == ["home"]


@pytest.mark.parametrize("what", ["resume", "abort"])
def test_a_roll_out_of_another_fleet_is_not_gone_on_with(home, monkeypatch, capsys, tmp_path, what):
    monkeypatch.setattr(rollouts, "run_rollout", lambda serving, begin, look: begin(home) and pytest.fail("it ran"))
    monkeypatch.setattr(RolloutBook, "unfinished", lambda self: self.newest())
    words = ["rollout", what, "--home", str(home.folder), *BROKER]
    assert main([*words, "--fleet", "other"]) == 1
    assert f"is of fleet '{FLEET}', not 'other'; leave --fleet out" in capsys.readouterr().err
    served = []
    newest = RolloutBook(home.database).load(RolloutBook(home.database).newest())
    monkeypatch.setattr(rollouts, "run_rollout", lambda serving, *_: served.append(serving.fleet) or newest)
    for own in ([], ["--fleet", FLEET]):
        assert main([*words, *own]) == 0
    assert served == [FLEET, FLEET]
