from __future__ import annotations

import pytest

from coordinator.rounds.book import Book, Counted
from coordinator.rounds.phases import begin_round
from tests.coordinator.runs import RUN, ledger, new_run
from wire.messages.reports import Receipt
from wire.messages.update import UpdateHeader

DIGESTS = [f"{at:064x}" for at in range(10)]


@pytest.fixture
def book(tmp_path):
    """Returns the book of a run with three devices invited to round 0."""
    database = new_run(tmp_path)
    book = Book(database, RUN)
    with database.change():
        book.invite(begin_round(database, RUN, 0, "base"), ["b", "a", "c"])
    yield book
    database.close()


def accept(book, device, digest, number=0, into=None, examples=10):
    header = UpdateHeader(RUN, number, device, "base", "delta", examples, {"seconds": 1.5})
    with book.database.change():
        book.accept(header, digest, 1234, number if into is None else into)


def test_invitations_are_open_at_first(book):
    assert book.outcomes(0) == {"a": "", "b": "", "c": ""}
    assert book.outcomes(1) == {}


def test_an_accepted_update_counts_and_is_in_the_ledger(book):
    accept(book, "a", DIGESTS[1])
    assert book.outcomes(0) == {"a": "accepted", "b": "", "c": ""}
    assert book.counted(0) == [Counted("a", 0, DIGESTS[1], 1234, 10)]
    assert book.has_update(0, "a")
    assert not book.has_update(0, "b")
    (line,) = ledger(book.database, "accepted")
    assert (line["device"], line["digest"], line["bytes"], line["examples"]) == ("a", DIGESTS[1], 1234, 10)
    assert (line["into"], line["metrics"]) == (0, {"seconds": 1.5})


def test_one_update_a_device_and_round(book):
    accept(book, "a", DIGESTS[1])
    with pytest.raises(Exception, match="UNIQUE"):
        accept(book, "a", DIGESTS[2])
    assert [update.digest for update in book.counted(0)] == [DIGESTS[1]]
    assert len(ledger(book.database, "accepted")) == 1


def test_the_order_is_canonical_whoever_came_first(book):
    for at, device in enumerate(["c", "a", "b"]):
        accept(book, device, DIGESTS[at])
    accept(book, "a", DIGESTS[5], number=1, into=0)
    assert [(update.device, update.round) for update in book.counted(0)] == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]


def test_a_late_update_counts_in_another_round(book):
    accept(book, "a", DIGESTS[1], number=0, into=2)
    assert book.counted(0) == []
    assert book.counted(2) == [Counted("a", 0, DIGESTS[1], 1234, 10)]
    assert book.has_update(0, "a")


def test_the_same_update_gets_the_same_receipt_again(book):
    accept(book, "a", DIGESTS[1])
    with book.database.change():
        book.refuse(0, "b", DIGESTS[2], "E-BASE", "another model")
    assert book.settled("a", DIGESTS[1]) == Receipt(DIGESTS[1], RUN, 0, "accepted")
    assert book.settled("b", DIGESTS[2]) == Receipt(DIGESTS[2], RUN, 0, "refused", "E-BASE", "another model")
    assert book.settled("b", DIGESTS[1]) is None
    assert book.settled("a", DIGESTS[3]) is None


def test_a_refusal_leaves_the_invitation_open_until_it_is_disregarded(book):
    with book.database.change():
        book.refuse(0, "a", DIGESTS[1], "E-CRC", "torn")
    assert book.outcomes(0)["a"] == ""
    with book.database.change():
        book.disregard(0, "a")
    assert book.outcomes(0)["a"] == "refused"
    accept(book, "a", DIGESTS[2])
    assert book.outcomes(0)["a"] == "accepted"


def test_a_decline_has_its_reason_in_the_ledger(book):
    with book.database.change():
        book.decline(0, "a", "E-HOT", "95 C")
    assert book.outcomes(0)["a"] == "declined"
    (line,) = ledger(book.database, "declined")
    assert (line["device"], line["code"], line["reason"]) == ("a", "E-HOT", "95 C")


def test_an_abandoned_round_moves_its_updates_to_the_refused(book):
    accept(book, "a", DIGESTS[1])
    accept(book, "b", DIGESTS[2], number=1)
    with book.database.change():
        book.give_up(0, "E-ROUND-ABANDONED", "too few")
    assert book.counted(0) == []
    assert book.counted(1) == [Counted("b", 1, DIGESTS[2], 1234, 10)]
    assert book.settled("a", DIGESTS[1]).code == "E-ROUND-ABANDONED"
    assert [line["digest"] for line in ledger(book.database, "refused")] == [DIGESTS[1]]


def test_the_largest_count_of_examples_is_remembered(book):
    assert book.most_examples("a") is None
    accept(book, "a", DIGESTS[1], examples=10)
    accept(book, "a", DIGESTS[2], number=1, examples=70)
    accept(book, "b", DIGESTS[3], examples=900)
    assert book.most_examples("a") == 70


def test_traffic_is_booked_only_if_there_was_some(book):
    with book.database.change():
        book.traffic(0, {}, {})
        book.traffic(0, {"a": 5}, {"a": 7, "b": 9})
    (line,) = ledger(book.database, "traffic")
    assert (line["up"], line["down"]) == ({"a": 5}, {"a": 7, "b": 9})


def test_runs_do_not_mix(book):
    accept(book, "a", DIGESTS[1])
    other = Book(book.database, "run-2")
    assert (other.outcomes(0), other.counted(0), other.most_examples("a")) == ({}, [], None)
