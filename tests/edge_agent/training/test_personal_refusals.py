"""What a personal round refuses rather than to go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.training.personal import fit_personal
from models.init import initial
from tests.edge_agent.training.personal_runs import KEY, NOW, SPEC, digits, run, settings
from wire.errors import ConfigError, Declined, StateError


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"centres": 4}, StateError, r"centres/\* hold \[\('fc1.weight', 2\)"),
        ({"centres": 2, "arch": "mlp-24"}, StateError, r"personal/\* hold"),
        ({"centres": 0}, StateError, r"centres/\* hold"),
    ],
)
def test_a_memory_of_other_settings_is_refused(change, error, said):
    memory = run(centres=2, **NOW).memory
    with pytest.raises(error, match=said) as caught:
        run(memory=memory, key=(3, 1, "dev-1"), **{**NOW, **change})
    assert "another run" in caught.value.remedy


def test_nothing_to_quantise_is_refused():
    with pytest.raises(ConfigError, match=r"centres = 2 and skip = \['first', 'last'\] leave no tensor of 'mlp-24'"):
        run(centres=2, arch="mlp-24", warm_rounds=0)


def test_transforms_and_a_penalty_are_refused_by_name():
    for more in ({"transforms": ({"transform": "qat", "bits": 3},)}, {"penalty": {"penalty": "kure"}}):
        with pytest.raises(ConfigError, match=r"personal models together with .*(qat|kure)"):
            fit_personal(initial(SPEC), SPEC, digits(), replace(settings(centres=0), **more), KEY, memory={})


def test_a_model_that_ran_away_is_not_remembered():
    with pytest.raises(Declined, match=r"the personal model's .* is no longer finite") as caught:
        run(centres=0, distil=0.0, rate=1e6)
    assert caught.value.code == "E-NONFINITE"
