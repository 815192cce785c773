from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import DataConfig, Limits, LinkConfig, TrainConfig, load_config
from models.splits import split
from wire.errors import ConfigError

NEEDED = 'device = "dev-1"\nfleet = "home"\nbroker = "mqtt://127.0.0.1"\nstate_dir = "state"\n'
DATA = '[data]\ntask = "digits"\n'


def read(folder, text):
    path = folder / "agent.toml"
    path.write_text(text)
    return load_config(path)


def test_what_is_left_out_has_its_default(tmp_path):
    config = read(tmp_path, NEEDED + DATA)
    assert (config.limits, config.train, config.link) == (Limits(), TrainConfig(), LinkConfig())
    assert config.data == DataConfig("digits")
    assert config.coordinator_key == ""


def test_every_key_is_read(tmp_path):
    text = (
        NEEDED
        + f'coordinator_key = "{"ab" * 32}"\nmodel_keys = ["{"cd" * 32}"]\n'
        + '[data]\ntask = "digits"\nfolder = "~/readings"\nsplit = "iid"\nparts = 4\npart = 3\nseed = 9\nexamples = 5\n'
        + "held_out = 0.1\n"
        + "[limits]\nmin_free_memory_mb = 1\nmin_free_disk_mb = 2.5\nmax_temperature_c = 70\n"
        + "min_battery_percent = 50\nmains_only = true\n"
        + "[train]\nthreads = 2\nlinger_s = 0\nnice = 5\nattempts = 7\nmax_batch = 64\n"
        + '[link]\nkeepalive_s = 30\nchunk_kib = 16\nusername = "dev-1"\npassword_file = "pass"\nca_file = "ca"\n'
        + 'cert_file = "cert"\nkey_file = "key"\n'
        + '[model]\nmax_latency_ms = 20\nmax_bytes = 9\nmax_mj = 8\nmin_accuracy = 0.5\nprofiles = ["int8"]\n'
        + "max_size_mb = 7\nhealth_s = 6\nprobe_s = 5\n"
    )
    config, plain = read(tmp_path, text), read(tmp_path, NEEDED + DATA)
    given, ordinary = asdict(config), asdict(plain)
    for part in ("data", "limits", "train", "link", "model"):
        same = [name for name, value in given[part].items() if value == ordinary[part][name] and name != "task"]
        assert not same, f"[{part}] {same} were not taken from the file"
    assert config.model_keys == ("cd" * 32,)
    assert config.data.folder is not None
    assert str(config.data.folder).startswith(str(Path.home()))
    assert type(config.limits.min_free_memory_mb) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NEEDED.replace("device", "devise", 1) + DATA, r"unknown key 'devise'; did you mean 'device'\?"),
        (NEEDED + DATA + "[train]\nthread = 2\n", r"train: unknown key 'thread'; did you mean 'threads'\?"),
        (NEEDED + DATA + "[limits]\nxyzzy = 2\n", "unknown key 'xyzzy'; known keys: min_free_memory_mb, "),
        (NEEDED, "key 'data' is missing"),
        (NEEDED + "[data]\n", "data: key 'task' is missing"),
        (NEEDED.replace('"home"', "5") + DATA, "fleet = 5 is not a text"),
        (NEEDED + DATA + '[train]\nthreads = "2"\n', "threads = '2' is not a whole number"),
        (NEEDED + DATA + "[train]\nthreads = true\n", "threads = True is not a whole number"),
        (NEEDED + DATA + "[limits]\nmains_only = 1\n", "mains_only = 1 is not true or false"),
        (NEEDED + 'data = "digits"\n', "data = 'digits' is not a table"),
        (NEEDED + DATA + "[link]\nca_file = 3\n", "ca_file = 3 is not a path"),
        ("device = \n", "is not TOML"),
    ],
)
def test_wrong_words_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "agent.toml" in caught.value.message


@pytest.mark.parametrize("name", ["", "Dev", "a_b", "a/b", "+", "x" * 33, "dev 1", "düse"])
@pytest.mark.parametrize("key", ["device", "fleet"])
def test_ids_that_a_topic_cannot_hold(tmp_path, key, name):
    own = "dev-1" if key == "device" else "home"
    with pytest.raises(ConfigError, match=f"^E-CONFIG: {key} = "):
        read(tmp_path, NEEDED.replace(f'{key} = "{own}"', f'{key} = "{name}"') + DATA)


@pytest.mark.parametrize("name", ["coordinator", "dashboard"])
def test_a_device_cannot_take_the_name_of_another_role(tmp_path, name):
    with pytest.raises(ConfigError, match="is not a device's name"):
        read(tmp_path, NEEDED.replace("dev-1", name) + DATA)


@pytest.mark.parametrize("key", ["ab", "AB" * 32, "zz" * 32, "ab" * 33])
def test_a_key_that_is_none_is_found_before_the_first_plan(tmp_path, key):
    with pytest.raises(ConfigError, match=r"coordinator_key.*`bitfleet keys`"):
        read(tmp_path, NEEDED + f'coordinator_key = "{key}"\n' + DATA)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "threads", 0),
        ("train", "attempts", 0),
        ("train", "linger_s", -1),
        ("train", "nice", 20),
        ("train", "max_batch", 0),
        ("limits", "min_free_memory_mb", -1.0),
        ("limits", "min_free_disk_mb", -0.5),
        ("limits", "max_temperature_c", "nan"),
        ("limits", "min_battery_percent", 101.0),
        ("link", "keepalive_s", 0),
        ("link", "keepalive_s", 65536),
        ("link", "chunk_kib", 1),
        ("model", "min_accuracy", 1.5),
        ("model", "health_s", -1.0),
        ("model", "probe_s", 0.5),
        ("model", "max_latency_ms", -1.0),
        ("model", "max_bytes", -1),
    ],
)
def test_numbers_that_mean_nothing(tmp_path, section, key, value):
    with pytest.raises(ConfigError, match=f"{section}.{key} = {value}.*; choose"):
        read(tmp_path, NEEDED + DATA + f"[{section}]\n{key} = {value}\n")


@pytest.mark.parametrize(("key", "value"), [("part", -1), ("part", 2), ("parts", 0), ("seed", -1), ("examples", -1)])
def test_a_part_that_there_is_not(tmp_path, key, value):
    rest = "".join(f"{name} = {at}\n" for name, at in (("parts", 2), ("part", 0)) if name != key)
    with pytest.raises(ConfigError, match=f"data.{key} = {value}; choose"):
        read(tmp_path, NEEDED + DATA + f'split = "iid"\n{rest}{key} = {value}\n')


@pytest.mark.parametrize(
    "rule",
    ["iid", "subject", "dirichlet:0.5", "dirichlet:1e3", "classes:2", "iidd", "iid:2", "subject:1", "dirichlet",
     "dirichlet:", "dirichlet:0", "dirichlet:inf", "dirichlet:nan", "classes:0", "classes:1.5", "classes:-1", "IID"],
)  # fmt: skip
def test_a_split_is_taken_exactly_if_data_can_be_shared_out_by_it(tmp_path, rule):
    labels = np.arange(40) % 4
    try:
        split(labels, labels, rule, 4, 1)
    except ConfigError:
        with pytest.raises(ConfigError, match=r"data\.split = .*; write iid, "):
            read(tmp_path, NEEDED + DATA + f'split = "{rule}"\n')
    else:
        assert read(tmp_path, NEEDED + DATA + f'split = "{rule}"\n').data.split == rule


@pytest.mark.parametrize("broker", ["nonsense", "", "http://broker", "mqtt://", "mqtt://broker:99999", "mqtt://a/b"])
def test_a_broker_that_has_no_address(tmp_path, broker):
    with pytest.raises(ConfigError, match=r"broker address .*; write it like mqtt://"):
        read(tmp_path, NEEDED.replace("mqtt://127.0.0.1", broker) + DATA)


@pytest.mark.parametrize("share", [-0.1, 0.95])
def test_a_share_of_held_out_examples_that_leaves_none_to_train_on(tmp_path, share):
    with pytest.raises(ConfigError, match=r"data.held_out = .*; choose 0 to 0.9"):
        read(tmp_path, NEEDED + DATA + f"held_out = {share}\n")


@pytest.mark.parametrize("keys", ['[""]', '["ab"]', f'["{"cd" * 32}", "{"XY" * 32}"]'])
def test_a_model_key_that_is_none(tmp_path, keys):
    with pytest.raises(ConfigError, match="model_keys holds"):
        read(tmp_path, NEEDED + f"model_keys = {keys}\n" + DATA)


def test_a_profile_that_nobody_makes(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.profiles = 'int7'; choose of int8, float"):
        read(tmp_path, NEEDED + DATA + '[model]\nprofiles = ["int7"]\n')


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read: No such file"):
        load_config(tmp_path / "nothing.toml")
