from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

import pytest

from coordinator.recipe import Recipe, load_recipe, recipe_from_json, recipe_names
from coordinator.recipes.sections import Train
from wire.errors import ConfigError


def read(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return load_recipe(str(path))


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_comes_back_from_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_what_ships():
    methods = ["adaquantfl", "apqn", "combined", "fedpt", "fedpt-private", "kure", "mqat", "qat", "quped", "zerofl"]
    assert recipe_names() == sorted(["echo", "fedavg", "fedavg-4bit", *methods])
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    four_bits = load_recipe("fedavg-4bit")
    assert four_bits.uplink.stages == four_bits.downlink.stages == ({"stage": "levels", "levels": 7},)
    assert load_recipe("fedavg").uplink.stages == ()


def test_a_file_is_named_after_itself_unless_it_has_a_name(tmp_path):
    assert read(tmp_path, "rounds = 3\n").name == "mine"
    assert read(tmp_path, 'name = "other"\n').name == "other"


def test_json_files_work_too(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(load_recipe("fedavg-4bit").to_json()))
    assert load_recipe(str(path)) == load_recipe("fedavg-4bit")


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("rounds=20", lambda r: r.rounds == 20),
        ("devices.goal=9", lambda r: r.devices.goal == 9),
        ("devices.quorum = 0.5", lambda r: r.devices.quorum == 0.5),
        ('model="mlp-24-24"', lambda r: r.model == "mlp-24-24"),
        ("model=mlp-24", lambda r: r.model == "mlp-24"),
        ("train.rate=1", lambda r: r.train.rate == 1.0),
        ('freeze=["fc1.*"]', lambda r: r.freeze == ("fc1.*",)),
        ('uplink.stages=[{stage="levels",levels=1}]', lambda r: r.uplink.stages[0]["levels"] == 1),
    ],
)
def test_settings_from_the_command_line(setting, found):
    assert found(load_recipe("fedavg", [setting]))


def test_the_later_setting_counts():
    assert load_recipe("fedavg", ["rounds=3", "rounds=5"]).rounds == 5


@pytest.mark.parametrize("mix", ["[]", '[{ centres = 0 }, { arch = "mlp-32" }]'])
def test_personal_models_without_a_tensor_to_quantise_are_refused_before_the_run(mix):
    settings = ["personal.skip=['first', 'last']", f"personal.mix={mix}", "model=mlp-16"]
    with pytest.raises(ConfigError, match=r"leave no tensor of 'mlp-.*' to quantise"):
        load_recipe("quped", settings)
    assert load_recipe("quped", [*settings, "personal.centres=0", "personal.mix=[]"]).personal["centres"] == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rounds", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("round=3", r"unknown key 'round'; did you mean 'rounds'\?"),
        ("train.lr=3", r"train: unknown key 'lr'; known keys: epochs, batch, rate"),
        ("rounds.more=3", "'rounds' is not a table"),
        ("rounds=1.5", "rounds = 1.5 is not a whole number"),
        ("rounds=0", "rounds = 0; choose 1 to"),
        ("seed=-1", "seed = -1; choose 0 to"),
        ("task=digit", "unknown task 'digit'"),
        ("model=mpl", "unknown architecture 'mpl'"),
        ("model=mlp-0", "takes at most"),
        ('freeze=["*"]', "leaves nothing of 'mlp' to train"),
        ('freeze=["fc9"]', "freeze 'fc9' fits no tensor"),
        ("devices.goal=0", "devices.goal = 0; choose 1 to"),
        ("devices.over=0.5", "devices.over = 0.5; choose 1 to"),
        ("devices.quorum=1.5", "devices.quorum = 1.5; choose 0 to 1"),
        ("devices.quorum=nan", "devices.quorum = nan"),
        ("devices.late=maybe", 'choose "refuse" or "fold"'),
        ("devices.deadline_s=-1", "devices.deadline_s"),
        ("devices.selection_timeout_s=-1", "devices.selection_timeout_s"),
        ("devices.max_staleness=-1", "devices.max_staleness"),
        ("devices.max_examples=0", "devices.max_examples"),
        ("devices.max_magnitude=0", "devices.max_magnitude"),
        ("devices.max_magnitude=1e13", "devices.max_magnitude"),
        ("devices.max_abandoned=0", "devices.max_abandoned"),
        ("split.rule=even", "choose iid, dirichlet:ALPHA"),
        ("train.epochs=-1", "train.epochs"),
        ("train.batch=0", "train.batch"),
        ("train.rate=-0.1", "train.rate"),
        ("train.momentum=1.5", "train.momentum"),
        ("train.decay=2", "train.decay"),
        ("uplink.kind=sum", 'choose "delta" or "weights"'),
        ("uplink.scope=model", 'choose "tensor" or "update"'),
        ('uplink.stages=[{stage="zip"}]', "zip"),
        ('uplink.stages=[{stage="levels",levels=0}]', "E-"),
        ('downlink.stages=[{stage="levels",level=7}]', "E-"),
        ("server.optimiser=lamb", "choose sgd, momentum or adam"),
        ("server.epsilon=0", "server.epsilon"),
        ("server.rate=-1", "server.rate"),
        ("server.momentum=2", "server.momentum"),
        ("server.beta2=2", "server.beta2"),
    ],
)
def test_what_means_nothing_is_refused_before_a_run_opens(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("fedavg", [setting])


def test_late_weights_would_undo_newer_rounds():
    with pytest.raises(ConfigError, match="late weights would undo newer rounds"):
        load_recipe("fedavg", ["devices.late=fold", "uplink.kind=weights"])
    assert load_recipe("fedavg", ["devices.late=fold"]).devices.late == "fold"
    assert load_recipe("fedavg", ["uplink.kind=weights"]).uplink.kind == "weights"


def test_the_rate_falls_geometrically_to_that_of_the_last_round():
    train = Train(rate=0.1, final_rate=0.0001)
    assert [train.rate_at(number, 4) for number in range(4)] == pytest.approx([0.1, 0.01, 0.001, 0.0001], rel=1e-12)
    for number in range(40):
        wanted = 0.1 * (0.01 / 0.1) ** (number / 39)
        assert Train(rate=0.1, final_rate=0.01).rate_at(number, 40) == pytest.approx(wanted, rel=1e-12)
    assert Train(rate=0.01, final_rate=0.04).rate_at(1, 3) == pytest.approx(0.02, rel=1e-12)


def test_a_rate_that_stays():
    assert [Train(rate=0.1).rate_at(number, 9) for number in (0, 4, 8)] == [0.1] * 3
    assert Train(rate=0.1, final_rate=0.01).rate_at(0, 1) == 0.1
    assert Train(rate=0.1, final_rate=0.01).rate_at(50, 9) == pytest.approx(0.01)  # no round is beyond the last


@pytest.mark.parametrize("name", ["fedavgg", "none.toml", "none.json"])
def test_a_recipe_that_is_not_there(name):
    with pytest.raises(ConfigError):
        load_recipe(name)


@pytest.mark.parametrize("text", ["[]", "{", "5"])
def test_json_that_is_no_recipe(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(str(tmp_path / "x.json"))


def test_the_rule_for_sharing_out_follows_the_task():
    assert load_recipe("fedavg").split_rule == "iid"
    assert load_recipe("fedavg", ["task=watch", 'model=""']).split_rule == "subject"
    assert load_recipe("fedavg", ["task=watch", 'model=""', "split.rule=iid"]).split_rule == "iid"


def test_every_section_is_frozen_settings():
    recipe = load_recipe("fedavg")
    for item in fields(Recipe):
        value = getattr(recipe, item.name)
        if is_dataclass(value):
            with pytest.raises(AttributeError):
                setattr(value, fields(value)[0].name, None)
