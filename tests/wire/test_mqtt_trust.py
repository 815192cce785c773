"""Passwords and TLS."""

from __future__ import annotations

import base64
import hashlib
import ssl

import pytest
from cryptography import x509

from tests.papers import LOCAL, Papers
from tests.waiting import WAIT_S, settled, wait_for
from wire.links.link import Link, parse_link, tls_context
from wire.transport import Down, Message, Up


def password_line(name, password):
    salt = b"0123456789ab"
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"{name}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def test_wrong_password_is_a_down_with_the_reason(mosquitto, client, tmp_path):
    (tmp_path / "names").write_text(password_line("pi", "right"))
    (tmp_path / "right").write_text("right\n")
    (tmp_path / "wrong").write_text("wrong\n")
    running = mosquitto(allow_anonymous="false", password_file=str(tmp_path / "names"))
    client(parse_link(running.url, username="pi", password_file=tmp_path / "right"), "right")
    wrong = client(parse_link(running.url, username="pi", password_file=tmp_path / "wrong"), "wrong", up=False)
    for _ in range(3):
        event = wrong.receive(WAIT_S)
        assert isinstance(event, Down)
        assert "Not authorized (0x87)" in event.reason
    (tmp_path / "wrong").write_text("right\n")
    wait_for(wrong, Up)
    (tmp_path / "wrong").unlink()
    running.kill()
    assert "cannot be read" in wait_for_reason(wrong, "cannot be read")


def wait_for_reason(transport, part):
    while part not in (reason := wait_for(transport, Down).reason):
        pass
    return reason


def test_tls_round_trip(broker, client, relay, tmp_path):
    papers = Papers(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*papers.issue("broker", LOCAL))
    between = relay(broker.port, tls=context)
    talker = client(parse_link(f"mqtts://127.0.0.1:{between.port}", ca_file=papers.ca_file), "talker")
    talker.subscribe("t")
    for size in (10, 60_000):
        talker.publish("t", bytes(size))
        assert wait_for(talker, Message) == Message("t", bytes(size))


def test_tls_with_a_client_certificate(mosquitto, client, tmp_path):
    papers = Papers(tmp_path)
    cert, key = papers.issue("broker", LOCAL)
    running = mosquitto(certfile=str(cert), keyfile=str(key), cafile=str(papers.ca_file), require_certificate="true")
    mine = papers.issue("pi", x509.DNSName("pi"))
    talker = client(parse_link(running.url, ca_file=papers.ca_file, cert_file=mine[0], key_file=mine[1]), "talker")
    assert settled(talker) == []
    bare = client(parse_link(running.url, ca_file=papers.ca_file), "bare", up=False)
    wait_for(bare, Down)


@pytest.mark.parametrize("fault", ["other name", "other authority"])
def test_tls_refuses_a_broker_that_cannot_prove_itself(relay, client, tmp_path, fault):
    papers = Papers(tmp_path)
    name = x509.DNSName("elsewhere.example") if fault == "other name" else LOCAL
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*papers.issue("broker", name))
    trusted = (papers if fault == "other name" else Papers(tmp_path)).ca_file
    link = parse_link(f"mqtts://127.0.0.1:{relay(1, tls=context).port}", ca_file=trusted)
    assert "CERTIFICATE_VERIFY_FAILED" in wait_for(client(link, "caller", up=False), Down).reason


def test_damaged_tls_files_are_a_down_with_the_reason(client, tmp_path):
    (tmp_path / "ca.crt").write_text("this is no certificate")
    link = parse_link("mqtts://127.0.0.1:1", ca_file=tmp_path / "ca.crt")
    assert "ca.crt" in wait_for(client(link, "caller", up=False), Down).reason


def test_tls_is_recent_and_checks_the_name():
    context = tls_context(Link("host", 8883, tls=True))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


@pytest.mark.parametrize("own", [True, False])
def test_a_home_made_authority_need_not_be_a_strict_one(monkeypatch, tmp_path, own):
    made = ssl.create_default_context

    def of_python_3_13(**words):
        context = made(**words)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", of_python_3_13)
    context = tls_context(Link("host", 8883, tls=True, ca_file=Papers(tmp_path).ca_file if own else None))
    assert bool(context.verify_flags & ssl.VERIFY_X509_STRICT) is not own
