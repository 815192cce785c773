"""Pieces and whole updates on their way in: who may send them, what is refused under which name, and a full disk."""

from __future__ import annotations

import errno
import hashlib

import pytest

from coordinator import desk as desk_module
from coordinator.rounds.intake import Intake
from tests.end_to_end.hostile_client import attacks
from wire.errors import StateError
from wire.messages.reports import Ask, encode_ask
from wire.pieces import assembly
from wire.pieces.chunks import encode_chunk

DIGEST, NOTHING = "ab" * 32, "00" * 32


def test_pieces_full_of_holes_do_not_fill_the_memory(room):
    made = room('model="vector-4000"')
    size = made.state.planner.most_update_bytes
    for at in range(0, 2 * 4097, 2):
        made.intruder.say("dev-0", "up", encode_chunk(DIGEST, size, at, b"x"))
        if at % 1000 == 0:
            made.settle()
    made.settle()
    assert [line["code"] for line in made.noted("refused", device="dev-0", digest=DIGEST)] == ["E-SIZE"]
    assert len(made.federation.desk.intake.parts["dev-0"].spans.held) == 0


def test_the_name_of_a_new_journal_is_on_the_disk_before_the_receipt(room, monkeypatch):
    synced, sync = [], assembly._sync_folder
    monkeypatch.setattr(assembly, "_sync_folder", lambda folder: synced.append(folder) or sync(folder))
    made = room()
    made.send("dev-0", made.forger().update("dev-0"))
    journal = made.home.run_folder(made.run) / "journal"
    assert [folder for folder in synced if folder in (journal, journal / "0")] == [journal, journal / "0"]


def test_too_large_is_said_to_the_question_and_the_round_does_not_wait(room):
    made = room("devices.quorum=0.5")
    plan, size = made.forger().plan, made.state.planner.most_update_bytes
    made.say("dev-0", "ask", encode_ask(Ask("update", DIGEST, plan.run, 0, size + 1)))
    assert made.intruder.verdicts("dev-0", DIGEST) == {("refused", "E-SIZE")}
    assert made.outcome("dev-0") == "refused"
    made.send("dev-1", made.forger("dev-1").update("dev-1"))
    assert made.state.number == 1


def test_a_piece_of_too_much_is_not_waited_for_either(room):
    made = room("devices.quorum=0.5")
    size = made.state.planner.most_update_bytes
    made.say("dev-0", "up", encode_chunk(DIGEST, size, size - 1, b"xx"))  # past its end, of a size that can be right
    assert made.outcome("dev-0") == ""
    made.say("dev-0", "up", encode_chunk(NOTHING, size + 1, 0, b"x"))
    assert made.intruder.verdicts("dev-0", NOTHING) == {("refused", "E-SIZE")}
    assert made.outcome("dev-0") == "refused"
    made.send("dev-1", made.forger("dev-1").update("dev-1"))
    assert made.state.number == 1


def test_a_piece_of_too_much_says_nothing_of_a_device_that_is_sending_another_update(room):
    """It is left over from before: of a run with a larger model."""
    made = room("devices.quorum=0.5")
    update, size = made.forger().update("dev-0"), made.state.planner.most_update_bytes
    digest = hashlib.sha256(update).hexdigest()
    made.say("dev-0", "up", encode_chunk(digest, len(update), 0, update[:40]))
    made.say("dev-0", "up", encode_chunk(DIGEST, size + 1, 0, b"x"))
    desk = made.federation.desk
    desk.intake = Intake(desk.intake.folder)  # as after a restart of the coordinator
    made.say("dev-0", "up", encode_chunk(NOTHING, size + 1, 0, b"x"))
    assert [line["code"] for line in made.noted("refused", device="dev-0")] == ["E-SIZE", "E-SIZE"]
    assert made.outcome("dev-0") == ""
    made.send("dev-1", made.forger("dev-1").update("dev-1"))
    assert made.state.number == 0
    made.say("dev-0", "up", encode_chunk(digest, len(update), 40, update[40:]))
    assert (made.state.number, made.intruder.verdicts("dev-0", digest)) == (1, {("accepted", "")})


def test_nobodys_invitation_fills_no_disk(room):
    made = room()
    made.say("mallory", "up", encode_chunk(DIGEST, 100, 0, b"x"))
    made.say("mallory", "ask", encode_ask(Ask("update", NOTHING, made.forger().plan.run, 0, 100)))
    for digest in (DIGEST, NOTHING):
        assert made.intruder.verdicts("mallory", digest) == {("refused", "E-NOT-INVITED")}
    assert not list(made.federation.desk.intake.folder.iterdir())


def test_pieces_and_refusals_go_with_their_round(room):
    made = room(devices=("dev-0", "dev-1", "dev-2"))
    made.say("dev-2", "up", b"rubbish")
    made.say("dev-2", "up", encode_chunk(DIGEST, 100, 0, b"x"))
    desk = made.federation.desk
    assert ([path.name for path in desk.intake.folder.iterdir()], len(desk.refusals)) == ([f"dev-2.{DIGEST}.part"], 1)
    for device in ("dev-0", "dev-1", "dev-2"):
        made.send(device, made.forger().update(device))
    assert made.state.number == 1
    assert not list(desk.intake.folder.iterdir())
    assert not desk.refusals


@pytest.mark.parametrize("name", ["not a frame", "no examples", "broken checksum"])
def test_a_wrong_late_update_does_not_speak_for_the_round_that_is_open(room, name):
    made = room("devices.late=fold")
    late, first = attacks(made.forger(), "dev-0")[name], made.forger()
    for device in ("dev-0", "dev-1"):
        made.send(device, first.update(device))
    assert made.state.number == 1
    digest = made.send("dev-0", late[0])
    assert made.intruder.verdicts("dev-0", digest) == {("refused", late[1])}
    assert made.outcome("dev-0") == ("refused" if name == "not a frame" else "")  # that one tells no round


def test_full_disk_is_the_coordinators_own_trouble(room, monkeypatch, capsys):
    made, full, move = room(), [True], desk_module.move_whole

    def move_or_fail(source, target, durable):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target, durable)

    monkeypatch.setattr(desk_module, "move_whole", move_or_fail)
    update = made.forger().update("dev-0")
    digest = made.send("dev-0", update)
    assert "event=disk device=dev-0" in capsys.readouterr().err
    assert (made.intruder.receipts, made.noted("refused"), made.outcome("dev-0")) == ([], [], "")
    full[0] = False
    plan = made.forger().plan
    made.say("dev-0", "ask", encode_ask(Ask("update", digest, plan.run, 0, len(update))))
    assert [r.spans for _, r in made.intruder.receipts] == [((0, len(update)),)]
    made.send("dev-0", update)
    assert made.outcome("dev-0") == "accepted"


def test_database_that_takes_nothing_ends_the_process_and_refuses_nothing(room):
    made = room()
    pages = made.home.database.row("PRAGMA page_count")[0]
    made.home.database.link.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match="takes no change"):
        for number in range(2000):
            made.say(f"m-{number}", "up", b"rubbish")
    made.home.database.link.execute("PRAGMA max_page_count = 100000")
    made.settle()
    made.send("dev-0", made.forger().update("dev-0"))
    assert made.outcome("dev-0") == "accepted"
