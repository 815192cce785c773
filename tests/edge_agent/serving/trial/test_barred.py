from __future__ import annotations

import pytest

from edge_agent.serving.trial.barred import bar, bar_model, barred, is_out, lift, parted
from wire.errors import StateError


def model(number, variant="float-32"):
    return {"manifest": f"{number}" * 64, "variant": variant}


def test_nothing_is_barred_at_first(tmp_path):
    assert barred(tmp_path) == ()
    lift(tmp_path, model(1))
    assert not list(tmp_path.iterdir())


def test_barred_until_it_is_lifted(tmp_path):
    for manifest in ("1" * 64, "2" * 64, "1" * 64):
        bar(tmp_path, manifest)
    assert barred(tmp_path) == ("2" * 64, "1" * 64)
    lift(tmp_path, model(2))
    assert barred(tmp_path) == ("1" * 64,)


def test_a_variant_is_barred_alone_where_another_of_its_manifest_serves(tmp_path):
    bar_model(tmp_path, model(1), model(1, "int8-8"))
    bar_model(tmp_path, model(2), model(1, "int8-8"))
    bar_model(tmp_path, model(3), None)
    assert [is_out(tmp_path, model(number)) for number in (1, 2, 3)] == [True] * 3
    assert [is_out(tmp_path, model(number, "int8-8")) for number in (1, 2, 3)] == [False, True, True]
    assert [parted(tmp_path, f"{number}" * 64) for number in (1, 2, 3)] == [True, False, False]
    lift(tmp_path, model(1))
    assert barred(tmp_path) == ("2" * 64, "3" * 64)


def test_the_newest_32_are_kept(tmp_path):
    for number in range(40):
        bar(tmp_path, f"{number:064d}")
    assert barred(tmp_path) == tuple(f"{number:064d}" for number in range(8, 40))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"manifests": 1}', '{"manifests": [1]}'])
def test_a_file_that_cannot_be_read_is_an_error_and_still_takes_the_next(tmp_path, text):
    (tmp_path / "rolled-back.json").write_text(text)
    with pytest.raises(StateError, match=r"E-STATE.*delete it if"):
        barred(tmp_path)
    lift(tmp_path, model(1))
    assert not parted(tmp_path, "1" * 64)
    assert (tmp_path / "rolled-back.json").read_text() == text
    bar(tmp_path, "1" * 64)
    assert barred(tmp_path) == ("1" * 64,)
