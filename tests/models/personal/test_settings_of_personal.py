"""What a personal model's settings refuse, and how."""

from __future__ import annotations

import pytest

from models.personal.settings import Personal, personal_from
from wire.errors import ConfigError


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"centres": 1}, r"centres = 1; choose 0 for full precision, or 2 to 256"),
        ({"centres": -2}, r"centres = -2"),
        ({"centres": 257}, r"centres = 257"),
        ({"distil": 1.5}, r"distil = 1.5; choose 0 to 1"),
        ({"temperature": 0.0}, r"temperature = 0.0"),
        ({"temperature": float("nan")}, r"temperature = nan"),
        ({"global_loss": "ce"}, r"global_loss = 'ce'; choose ce\+kd or kd"),
        ({"prox": "l3"}, r"prox = 'l3'; choose l1 or l2"),
        ({"slope": -1.0}, r"slope = -1.0"),
        ({"centre_rate": -1.0}, r"centre_rate = -1.0"),
        ({"centre_clip": 0.0}, r"centre_clip = 0.0"),
        ({"sharpness": -1.0}, r"sharpness = -1.0"),
        ({"warm_rounds": -1}, r"warm_rounds = -1"),
        ({"rate": float("inf")}, r"rate = inf"),
        ({"held_out": 1.0}, r"held_out = 1.0; choose 0 to 0.9"),
        ({"distil": 0.0, "global_loss": "kd"}, r"teaches the global model nothing; choose distil above 0"),
        ({"freeze_round": 5}, r"freeze_round = 5; choose 0 for never, or at least warm_rounds = 10"),
        ({"center": 2}, r"unknown key 'center'; did you mean 'centres'"),
        ({"centres": 2.0}, r"centres = 2.0 is not a whole number"),
        ({"skip": "first"}, r"skip = 'first' is not a list"),
    ],
)
def test_refused_by_value_and_with_a_remedy(table, said):
    with pytest.raises(ConfigError, match=said) as caught:
        personal_from(table)
    assert caught.value.remedy or "is not" in caught.value.message


def test_what_is_left_out_is_the_default():
    assert personal_from({}) == Personal()
    own = personal_from({"centres": 2, "skip": [], "freeze_round": 10, "distil": 1})
    assert own == Personal(centres=2, skip=(), freeze_round=10, distil=1.0)
