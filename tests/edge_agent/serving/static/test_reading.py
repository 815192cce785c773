"""What the static check reads is what any reader finds, and costs little, whatever the file."""

from __future__ import annotations

import tracemalloc

import pytest

from edge_agent.serving.static.graph import check_graph
from tests.edge_agent.serving.stage.files import file_bytes, model
from tests.edge_agent.serving.stage.looks import WANTED, edited, field, in_graph, refused, tensor, varint


def test_the_head_of_the_runtimes_own_format_is_refused():
    made = model()
    made.ClearField("producer_name")
    head = b"\x08\x08\x12\x04"
    rest = made.SerializeToString().removeprefix(b"\x08\x08")
    check_graph(head + b"ABCD" + rest, WANTED)
    assert "own format" in refused(head + b"ORTM" + rest)


@pytest.mark.parametrize(
    ("number", "right"),
    [
        (b"\x08", True),
        (b"\x88\x00", False),
        (b"\x88\x80\x00", False),
        (b"\x88" + b"\x80" * 8 + b"\x00", False),
        (b"\x88" + b"\x80" * 8 + b"\x02", False),
        (b"\x88" + b"\x80" * 9 + b"\x00", False),
    ],
)
@pytest.mark.parametrize("what", ["tag", "value", "size"])
def test_a_number_is_read_in_its_shortest_form_only(number, right, what):
    """A longer one moves what comes after it to where another reader looks for something else."""
    rest = file_bytes().removeprefix(b"\x08\x08")
    data = {"tag": number + b"\x08", "value": b"\x08" + number, "size": b"\x08\x08\x12" + number + b"x" * 8}[what]
    if right:
        check_graph(data + rest, WANTED)
    else:
        assert "number" in refused(data + rest)


@pytest.mark.parametrize(
    "fields",
    [
        (b"\x08\x01", b"\x4d" + b"\0" * 4),  # raw_data as 4 bytes: the runtime passes it over
        (b"\x0a\x01\x01", b"\x21" + b"\0" * 8),
        (b"\x0d" + b"\x01\0\0\0", b"\x4a\x04" + b"\0" * 4),
        (b"\x08\x01", b"\x4a\x04" + b"\0" * 4, b"\x70\x00\x63\x64"),
    ],
)
def test_a_field_in_another_form_than_its_own_is_refused(fields):
    check_graph(in_graph(tensor(b"\x08\x01", b"\x4a\x04" + b"\0" * 4)), WANTED)
    assert "wire type" in refused(in_graph(tensor(*fields)))


def test_a_side_that_is_a_number_to_one_and_a_name_to_another():
    other = field(12, field(1, b"output") + field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x01") +
                   field(1, b"\x08\x03\x12\x01x")))))  # fmt: skip
    made = model()
    made.graph.ClearField("output")
    graph = made.graph.SerializeToString()
    made.ClearField("graph")
    assert "a number and a name" in refused(made.SerializeToString() + field(7, graph + other))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([tensor(b"\x08\x00", b"\x22\x00" * 5_000)], "more than 1000 fields"),
        ([tensor(b"\x08\x00", b"\x22\x00" * 2)], "field 4 is there 2 times"),
        ([tensor(b"\x08\x02", b"\x22\x04" + b"\0" * 4, b"\x22\x04" + b"\0" * 4)], ""),
        ([tensor(b"\x0a" + varint(1 << 22) + b"\x01" * (1 << 22))], "shape [1, 1, 1"),
        ([b"\x6a\x00" * 70_000], "more than 60000 fields"),
        (
            [field(1, field(2, b"%d" % at) + field(4, b"Relu") + b"\x2a\x00" * 990) for at in range(400)],
            "whole file",
        ),
    ],
)
def test_many_small_things_cost_little(fields, words):
    data = in_graph(*fields)
    tracemalloc.start()
    try:
        if words:
            assert words in refused(data)
        else:
            check_graph(data, WANTED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


def test_values_are_counted_without_a_copy_of_all():
    count = 1 << 24
    held = field(5, field(8, b"extra") + b"\x10\x06\x08" + varint(count) + field(5, bytes(count)))
    data = in_graph(held)
    tracemalloc.start()
    try:
        check_graph(data, WANTED)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_metadata_have_an_end():
    def change(names):
        def made(model):
            for name in names:
                model.metadata_props.add(key=name, value="x" * 60_000)

        return edited(made)

    check_graph(change("abcdefg"), WANTED)
    assert "more than 1048576 bytes" in refused(change([str(at) for at in range(20)]))
    assert "there twice" in refused(change("aa"))
