"""Forms: the values they stand for, the bytes they take, and what is refused."""

import numpy as np
import pytest

from export.forms import Integer, Plain, Table, Uniform
from export.refused import ExportError

CODES = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
ONE = np.ones(2, np.float32)


def test_values_are_rounded_once_a_step():
    scale, low = np.array([0.1, 0.3], np.float32), np.array([-0.7, 1.1], np.float32)
    values = Uniform(2, CODES, scale, low).values()
    assert values.dtype == np.float32
    assert values[1, 0] == np.float32(np.float32(3) * scale[1]) + low[1]
    whole = Integer(2, CODES, 40, np.array([-60, -128], np.int16), scale)
    assert whole.int8.tolist() == [[-60, -20, 20], [-8, -48, -88]]
    assert np.array_equal(whole.values(), whole.int8.astype(np.float32) * scale[:, None])


def test_a_table_may_be_unordered_and_is_rounded_to_int8_with_one_scale():
    table = Table(2, CODES, np.array([0.3, -0.5, 0.0, 1.27], np.float32))
    assert table.values().tolist() == table.table[CODES].tolist()
    assert table.int8.tolist() == [[30, -50, 0], [127, 0, -50]]
    rounded = table.rounded()
    assert np.array_equal(rounded.values(), table.int8.astype(np.float32) * table.channel_scale[0])
    assert np.array_equal(rounded.rounded().int8, table.int8)


def test_a_table_of_zeros_has_a_scale():
    form = Table(1, CODES % 2, np.zeros(2, np.float32))
    assert form.channel_scale.min() > 0
    assert not form.rounded().values().any()


def test_payload_counts_planes_scales_and_tables():
    codes = np.zeros((2, 9), np.uint8)  # 18 codes: 3 bytes a plane
    assert Uniform(3, codes, ONE, ONE).payload_bytes == 9 + 16
    assert Uniform(8, codes, ONE, ONE).payload_bytes == 18 + 16
    assert Integer(3, codes, 1, np.zeros(2, np.int16), ONE).payload_bytes == 9 + 16
    assert Integer(8, codes, 1, np.zeros(2, np.int16), ONE).payload_bytes == 18 + 8
    assert Integer(8, codes, 1, np.zeros(2, np.int16), ONE, spread=True).payload_bytes == 24 + 16
    assert Table(1, codes, ONE).payload_bytes == 3 + 8
    assert Plain(np.zeros((2, 9), np.float32)).payload_bytes == 72


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Uniform(2, CODES, np.ones(3, np.float32), ONE),
        lambda: Uniform(2, CODES, ONE * 0, ONE),
        lambda: Uniform(2, CODES, -ONE, ONE),
        lambda: Uniform(2, CODES, ONE, ONE * np.float32("nan")),
        lambda: Uniform(1, CODES, ONE, ONE),
        lambda: Uniform(2, CODES[0], ONE[:1], ONE[:1]),
        lambda: Integer(2, CODES, 64, np.zeros(2, np.int16), ONE),
        lambda: Integer(2, CODES, 128, np.full(2, -128, np.int16), ONE),
        lambda: Integer(2, CODES, 0, np.zeros(2, np.int16), ONE),
        lambda: Table(2, CODES, np.ones(3, np.float32)),
        lambda: Table(2, CODES, np.array([0, 1, 2, np.inf], np.float32)),
        lambda: Plain(np.full((2, 2), np.nan, np.float32)),
    ],
)
def test_what_no_file_could_compute_is_refused(wrong):
    with pytest.raises(ExportError):
        wrong()
