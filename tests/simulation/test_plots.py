from __future__ import annotations

import os
import sys

import pytest

from simulation.plots import check_plots, curve_of, draw
from wire.errors import ConfigError

LEDGER = [
    {"event": "traffic", "round": 0, "up": {"a": 10, "b": 5}, "down": {}},
    {"event": "evaluated", "round": 0, "accuracy": 0.5, "accuracy_by_bits": {"4": 0.4}},
    {"event": "traffic", "round": 1, "up": {"a": 1}, "down": {}},
    {"event": "traffic", "round": 1, "up": {"b": 1}, "down": {}},
    {"event": "evaluated", "round": 1},
    {"event": "traffic", "round": 2, "up": {"a": 3}, "down": {}},
    {"event": "evaluated", "round": 2, "accuracy": 0.75, "accuracy_by_bits": {"8": 0.7, "4": 0.6}},
]


def test_a_curve_is_what_the_ledger_says():
    curve = curve_of("one", LEDGER)
    assert curve["rounds"] == [1, 3]
    assert curve["bytes_up"] == [15, 20]
    assert curve["accuracy"] == [0.5, 0.75]
    assert curve["bits"] == {4: 0.6, 8: 0.7}


@pytest.mark.parametrize(("bits", "panels"), [(True, 3), (False, 2)])
def test_the_picture_has_a_panel_for_each_question(tmp_path, monkeypatch, bits, panels):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    curves = [curve_of(name, LEDGER) for name in ("one", "two")]
    for curve in curves:
        curve["bits"] = curve["bits"] if bits else {}
    draw(curves, tmp_path / "p.png")
    (figure,) = drawn
    assert len(figure.axes) == panels
    lines = figure.axes[1].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[15, 20], [15, 20]]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["one", "two"]


def test_a_picture_is_left(tmp_path):
    pytest.importorskip("matplotlib")
    draw([curve_of("one", LEDGER)], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"bitfleet\[plots\]"):
        check_plots(tmp_path / "p.png")
    check_plots(None)


def test_a_picture_that_may_not_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "p.png").touch()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))  # root may do all
    for name in ("p.png", "new.png"):
        with pytest.raises(ConfigError, match=rf"--plot .*{name}.* may not be written"):
            check_plots(tmp_path / name)
