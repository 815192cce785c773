"""Signatures: only the coordinator's key opens the door, and every byte counts."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.wire.messages.samples import PLAN
from wire.errors import BitfleetError, ConfigError, WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.plan import encode_plan, read_plan
from wire.sign import check_signature, make_key, public_key, signer

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"  # RFC 8032, 7.1, test 1
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_text(SEED + "\n")
    return path


def refusal(frame, public=PUBLIC) -> BitfleetError:
    with pytest.raises(BitfleetError) as caught:
        check_signature(frame, public)
    return caught.value


def test_a_signed_plan_passes(key):
    assert public_key(key) == PUBLIC
    data = encode_plan(PLAN, signer(key))
    frame = decode_frame(data, Kind.PLAN)
    check_signature(frame, PUBLIC)
    assert read_plan(frame) == PLAN
    assert frame.signature == Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SEED)).sign(data[:-68])


def test_the_standard_s_own_example(key):
    signature = signer(key)(b"").hex()
    assert signature.startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_no_signature_another_key_and_other_bytes_are_refused(key, tmp_path):
    make_key(tmp_path / "other")
    signed = encode_frame(Kind.PLAN, {"a": 1}, sign=signer(key))
    assert refusal(decode_frame(encode_frame(Kind.PLAN, {"a": 1}), Kind.PLAN)).code == "E-SIGNATURE"
    assert refusal(decode_frame(signed, Kind.PLAN), public_key(tmp_path / "other")).code == "E-SIGNATURE"
    signature = decode_frame(signed, Kind.PLAN).signature
    for changed in ({"a": 2}, {}):
        forged = encode_frame(Kind.PLAN, changed, sign=lambda body: signature)
        assert refusal(decode_frame(forged, Kind.PLAN)).code == "E-SIGNATURE"
    as_receipt = encode_frame(Kind.RECEIPT, {"a": 1}, sign=lambda body: signature)
    assert refusal(decode_frame(as_receipt, Kind.RECEIPT)).code == "E-SIGNATURE"


def test_a_new_key_is_the_owner_s_alone_and_never_overwritten(tmp_path):
    path = tmp_path / "key"
    make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    with pytest.raises(ConfigError, match="cannot be made: File exists; a key is never overwritten"):
        make_key(path)
    assert path.read_text() == text and len(bytes.fromhex(text)) == 32


@pytest.mark.parametrize("text", ["", "00", "x" * 64, "00" * 33, "é" * 64])
def test_what_is_no_key(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text, encoding="utf-8")
    for use in (signer, public_key):
        with pytest.raises(ConfigError):
            use(path)
    frame = decode_frame(encode_frame(Kind.PLAN, {}, sign=lambda body: b"\0" * 64), Kind.PLAN)
    with pytest.raises((ConfigError, WireError)):
        check_signature(frame, text)


def test_a_key_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        signer(tmp_path / "none")


@pytest.mark.parametrize("public", ["00" * 32, "ff" * 32, "01" + "00" * 31])
def test_odd_points_accept_nothing(public):
    frame = decode_frame(encode_frame(Kind.PLAN, {}, sign=lambda body: b"\1" * 64), Kind.PLAN)
    assert refusal(frame, public).code == "E-SIGNATURE"
