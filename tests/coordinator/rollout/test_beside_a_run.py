"""A device that still wants blobs of a roll-out while a run goes on: it waits, and is not refused for it."""

from __future__ import annotations

from wire.messages.reports import Ask, encode_ask


def test_questions_for_models_wait_for_their_roll_out(room):
    made = room()
    made.home.shelf.mkdir(parents=True)
    (made.home.shelf / ("a" * 64)).write_bytes(b"a model")
    for _ in range(30):
        made.say("dev-0", "ask", encode_ask(Ask("blob", "a" * 64, spans=((0, 7),))))
    assert made.noted("refused") == []
    for digest in ("b" * 64, ""):
        made.say("dev-0", "ask", encode_ask(Ask("blob", digest, spans=((0, 7),))))
    assert [line["code"] for line in made.noted("refused")] == ["E-BLOB"] * 2
    made.send("dev-0", made.forger("dev-0").update("dev-0"))
    assert made.outcome("dev-0") == "accepted"
