"""The random words are Philox4x64-10, and everything made from them follows integer rules."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits, key_of

ROOT = Path(__file__).parents[2]
GOLDEN_123 = [0x845A748F4852C9A3, 0x2F0D8AAE69B255BA, 0x367C80C2347E0A9B, 0x35C08AAE20FBA324]
MASK = (1 << 64) - 1
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def philox_block(key: int, number: int) -> list[int]:
    """Returns the four words of counter `number`, by the steps that docs/wire.md lists."""
    counter = [(number >> 64 * at) & MASK for at in range(4)]
    keys = [key & MASK, key >> 64]
    for _ in range(10):
        first, second = MULTIPLIERS[0] * counter[0], MULTIPLIERS[1] * counter[2]
        counter = [
            (second >> 64) ^ counter[1] ^ keys[0],
            second & MASK,
            (first >> 64) ^ counter[3] ^ keys[1],
            first & MASK,
        ]
        keys = [(k + w) & MASK for k, w in zip(keys, WEYL, strict=True)]
    return counter


def test_golden_words():
    assert Bits(123).words(4).tolist() == GOLDEN_123


@given(st.integers(0, (1 << 128) - 1), st.integers(1, 20))
def test_words_are_philox_from_counter_one(key, count):
    blocks = [word for number in range(1, 6) for word in philox_block(key, number)]
    assert Bits(key).words(count).tolist() == blocks[:count]


@given(st.lists(st.integers(0, 9), max_size=6))
def test_words_do_not_depend_on_how_many_are_asked_for_at_once(counts):
    stream, whole = Bits(5), Bits(5).words(sum(counts)).tolist()
    assert [word for count in counts for word in stream.words(count).tolist()] == whole


def test_a_key_is_the_first_half_of_a_sha256():
    assert key_of(7, 2, "pi-4", 0) == int.from_bytes(hashlib.sha256(b"7\x1f2\x1fpi-4\x1f0").digest()[:16], "little")
    assert key_of() == int.from_bytes(hashlib.sha256(b"").digest()[:16], "little")
    assert Bits.of(1, "w").words(3).tolist() == Bits(key_of("1", "w")).words(3).tolist()


@given(st.integers(0, 1 << 64), st.integers(0, 33))
def test_uniforms_are_the_halves_low_half_first(key, count):
    words = Bits(key).words((count + 1) // 2).tolist()
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)][:count]
    uniform = Bits(key).uniform(count)
    assert uniform.dtype == np.float32
    assert [float(u) for u in uniform] == [(half >> 8) / 2**24 for half in halves]


def test_uniforms_stay_in_range_and_spread():
    uniform = Bits(9).uniform(100_000).astype(np.float64)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 / np.sqrt(12 * 100_000)
    assert np.histogram(uniform, 10, (0, 1))[0].min() > 10_000 - 5 * 100


def test_an_even_count_throws_nothing_away():
    stream, words = Bits(4), Bits(4).words(3).tolist()
    stream.uniform(4)
    assert stream.words(1).tolist() == words[2:]


def test_an_odd_count_throws_half_a_word_away():
    stream, words = Bits(4), Bits(4).words(3).tolist()
    stream.uniform(3)
    assert stream.words(1).tolist() == words[2:]


@given(st.integers(0, 50))
def test_a_permutation_sorts_the_words(count):
    order = Bits(3).permutation(count).tolist()
    words = Bits(3).words(count).tolist()
    assert order == sorted(range(count), key=lambda at: words[at])


def test_a_fresh_interpreter_draws_the_same():
    code = "from wire.bits import Bits; print(Bits.of(1, 'x').words(5).tolist(), Bits(2).uniform(5).tobytes().hex())"
    command = [sys.executable, "-W", "error", "-c", code]
    fresh = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert fresh.stdout.strip() == f"{Bits.of(1, 'x').words(5).tolist()} {Bits(2).uniform(5).tobytes().hex()}"
