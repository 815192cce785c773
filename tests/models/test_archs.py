"""Architectures without torch: names, arguments, shapes, what is frozen."""

import subprocess
import sys

import pytest

from models.archs import Arch, arch_names, find_arch, spec_of
from models.layouts import dense, norm
from wire.errors import ConfigError
from wire.spec import ModelSpec


def count(arch, *shape, outputs=10):
    return spec_of(arch, shape, outputs, seed=0).count


def test_counts_of_the_papers():
    assert count("leaf", 1, 28, 28) == 1_663_370
    assert count("resnet8", 1, 28, 28) == 77_562
    assert count("resnet18", 3, 32, 32) == 11_172_170
    assert count("mlp-24-24-24", 1, 8, 8) == 64 * 24 + 24 + 2 * (24 * 24 + 24) + 24 * 10 + 10


def test_mobile_lists_depthwise_weights_of_one_input_each():
    shapes = {tensor.name: tensor.shape for tensor in spec_of("mobile", (1, 28, 28), 10, 0).trainable}
    assert shapes["depth1.weight"] == shapes["depth2.weight"] == (16, 1, 3, 3)
    assert shapes["point2.weight"] == (32, 16, 1, 1)
    assert not {"stem.bias", "depth1.bias", "point1.bias"} & set(shapes)


def test_arguments_replace_the_defaults():
    assert find_arch("mlp")[2] == (64,)
    assert find_arch("mlp-3-4")[2] == (3, 4)
    assert count("mlp", 1, 8, 8) == count("mlp-64", 1, 8, 8)
    assert [tensor.shape for tensor in spec_of("vector-7", (1,), 1, 0).trainable] == [(7,)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("resnet9", "resnet8"),
        ("mpl", "mlp"),
        ("", "vector"),
        ("mlp-0", "at least 1"),
        ("mlp-1234567890", "mlp"),
        ("leaf-3", "at most 0"),
        ("mlp" + "-2" * 17, "at most 16"),
    ],
)
def test_wrong_text_is_refused_with_a_way_out(text, names):
    with pytest.raises(ConfigError) as caught:
        spec_of(text, (1, 8, 8), 10, 0)
    assert names in caught.value.remedy


@pytest.mark.parametrize(
    ("arch", "shape", "outputs"),
    [
        ("cnn", (64,), 10),
        ("cnn", (1, 3, 8), 10),
        ("leaf", (1, 8, 3), 10),
        ("cnn1d", (6, 3), 7),
        ("cnn1d", (1, 8, 8), 7),
        ("resnet8", (6, 100), 7),
        ("resnet8-12", (1, 8, 8), 10),
        ("mobile-8-12", (1, 8, 8), 10),
        ("mobile", (6, 100), 7),
        ("mlp", (), 10),
        ("mlp", (0, 8), 10),
        ("mlp", (8,), 0),
    ],
)
def test_wrong_shapes_are_refused(arch, shape, outputs):
    with pytest.raises(ConfigError) as caught:
        spec_of(arch, shape, outputs, 0)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("freeze", "names"),
    [
        (("largest",), ["fc1.weight"]),
        (("out.bias", "fc1.weight"), ["fc1.weight", "out.bias"]),
        (("*.bias",), ["fc1.bias", "out.bias"]),
        (("fc1",), ["fc1.weight", "fc1.bias"]),
        (("out.*", "largest"), ["fc1.weight", "out.weight", "out.bias"]),
    ],
)
def test_freeze_keeps_the_order_of_the_net(freeze, names):
    spec = spec_of("mlp", (1, 8, 8), 10, 0, freeze)
    every = [tensor.name for tensor in spec_of("mlp", (1, 8, 8), 10, 0).trainable]
    assert [tensor.name for tensor in spec.frozen] == names
    assert [tensor.name for tensor in spec.trainable] == [name for name in every if name not in names]


def test_freeze_takes_what_comes_before_any_dot():
    every = [tensor.name for tensor in spec_of("resnet8", (3, 8, 8), 10, 0).trainable]
    parts = {name.rsplit(".", depth)[0] for name in every for depth in (1, 2)}
    assert any("." in part for part in parts)
    for part in parts:
        frozen = [tensor.name for tensor in spec_of("resnet8", (3, 8, 8), 10, 0, (part,)).frozen]
        assert frozen == [name for name in every if name.split(".")[: part.count(".") + 1] == part.split(".")]


def test_freeze_must_fit_and_leave_something():
    with pytest.raises(ConfigError, match=r"fc1\.weight"):
        spec_of("mlp", (4,), 2, 0, ("fc1.wieght",))
    for part in ("fc", "fc1.", "", ".", "weight"):
        with pytest.raises(ConfigError, match="fits no tensor"):
            spec_of("mlp", (4,), 2, 0, (part,))
    with pytest.raises(ConfigError, match="nothing"):
        spec_of("mlp", (4,), 2, 0, ("*",))


def test_spreads_and_fills():
    by_name = {tensor.name: tensor for tensor in spec_of("resnet8", (1, 8, 8), 10, 0).trainable}
    assert by_name["stem.weight"].spread == (6 / 9) ** 0.5
    assert (by_name["stem_norm.weight"].fill, by_name["stem_norm.weight"].spread) == (1.0, 0.0)
    assert (by_name["out.bias"].fill, by_name["out.bias"].spread) == (0.0, 0.0)


def test_a_spec_survives_its_json():
    spec = spec_of("cnn", (1, 8, 8), 10, 5, ("largest",))
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_archs_load_no_torch():
    code = "import sys, models.archs as a; a.spec_of('resnet18', (3, 32, 32), 10, 0); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_foreign_architectures(offer):
    listed = Arch(
        tensors=lambda shape, outputs, args: (*dense("a", shape[0], args[0]), *norm("n", 3)), defaults=(2,), most=1
    )
    offer("bitfleet.models", {"mine": listed, "made": lambda: listed, "odd": 3, "hollow": Arch(), "mlp": listed})
    assert "mine" in arch_names()
    assert [tensor.name for tensor in spec_of("mine-5", (4,), 2, 0).trainable] == [
        "a.weight",
        "a.bias",
        "n.weight",
        "n.bias",
    ]
    assert spec_of("made", (4,), 2, 0).count == spec_of("mine", (4,), 2, 0).count
    assert spec_of("mlp", (4,), 2, 0).trainable[0].name == "fc1.weight", "a built-in name stays ours"
    for wrong in ("odd", "hollow", "absent"):
        with pytest.raises(ConfigError) as caught:
            spec_of(wrong, (4,), 2, 0)
        assert wrong in caught.value.message


def test_without_torch_a_foreign_net_must_list_its_tensors(offer, monkeypatch):
    offer("bitfleet.models", {"mine": Arch(build=lambda *_: None)})
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "models.nets", raising=False)
    with pytest.raises(ConfigError, match="torch is missing"):
        spec_of("mine", (4,), 2, 0)


def test_a_broken_entry_point_is_named(offer, tmp_path):
    offer("bitfleet.models", {})
    dist = next(tmp_path.glob("*.dist-info"))
    (dist / "entry_points.txt").write_text("[bitfleet.models]\ngone = no_such_module_here:net\n")
    with pytest.raises(ConfigError, match="no_such_module_here"):
        spec_of("gone", (4,), 2, 0)


def test_two_packages_with_one_name(offer, tmp_path):
    offer("bitfleet.models", {"twin": 1})
    second = tmp_path / "second-1.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: second\nVersion: 1\n")
    (second / "entry_points.txt").write_text("[bitfleet.models]\ntwin = other:thing\n")
    with pytest.raises(ConfigError, match="twin"):
        arch_names()
