"""Addresses and the back-off."""

from __future__ import annotations

import pytest

from wire.errors import ConfigError
from wire.links.link import Backoff, Link, parse_link


@pytest.mark.parametrize("failures", [0, 1, 5, 6, 7, 5000])
def test_back_off_has_full_jitter(failures):
    longest_s = min(30.0, 0.5 * 2.0 ** min(failures, 10))
    assert Backoff().wait_s(failures, lambda: 0.0) == 0.0
    assert Backoff().wait_s(failures, lambda: 0.25) == longest_s / 4
    assert Backoff().wait_s(failures, lambda: 1.0) == longest_s


def test_links_are_read():
    assert parse_link("mqtt://host") == Link("host", 1883)
    assert parse_link("mqtts://h.example/") == Link("h.example", 8883, tls=True)
    assert parse_link("mqtt://pi%20x@[::1]:99") == Link("::1", 99, username="pi x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:1883",
        "http://host",
        "mqtt://",
        "mqtt://host:0",
        "mqtt://host:70000",
        "mqtt://h/x",
        "mqtt://h?a=b",
        "mqtt://[",
    ],
)
def test_bad_addresses_are_named_with_an_example(url):
    with pytest.raises(ConfigError, match=r"mqtts://broker\.example:8883") as caught:
        parse_link(url)
    assert repr(url) in str(caught.value)


def test_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="password file") as caught:
        parse_link("mqtt://pi:geheim@host")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "mqtt://h", "password_file": "a"},
        {"url": "mqtt://h", "ca_file": "a"},
        {"url": "mqtts://h", "cert_file": "a"},
        {"url": "mqtts://h", "ca_file": "missing"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings, tmp_path):
    (tmp_path / "a").write_text("x")
    files = {key: tmp_path / value for key, value in settings.items() if key != "url"}
    with pytest.raises(ConfigError):
        parse_link(settings["url"], **files)


def test_a_file_in_a_folder_that_may_not_be_entered_is_named(monkeypatch, tmp_path):
    def closed(path, *args, **words):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.stat", closed)
    with pytest.raises(ConfigError, match=r"ca\.crt is not a file, or out of reach"):
        parse_link("mqtts://h", ca_file=tmp_path / "ca.crt")
