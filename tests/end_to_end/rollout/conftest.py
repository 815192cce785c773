"""The files that all boards are offered, made once."""

from __future__ import annotations

import pytest

from tests.end_to_end.rollout.model_board import export, report_of, train, with_accuracies


@pytest.fixture(scope="session")
def ladder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    train(folder, "mlp-24-24-24", rounds=8)
    exports = export(folder, folder / "exports", "8,4,2")
    best = max(one["accuracy"] for one in report_of(exports)["variants"] if one["profile"] == "float")
    with_accuracies(exports, {"int8-8": best})  # so that of two that are as accurate the smaller must be taken
    return exports
