import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import NotFoundError, TrustError, UsageError
from policies.signing import (
    Signer,
    add_signature,
    generate_key,
    load_signer,
    sign_envelope,
    unsafe_payload,
    unsafe_signature_count,
    verify_envelope,
)

KIND = "application/vnd.test+yaml"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Signer]:
    folder = tmp_path_factory.mktemp("keys")
    for name in "abc":
        generate_key(folder / name)
    return [load_signer(folder / name) for name in "abc"]


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "deep" / "key.pem")
    assert stat.S_IMODE((tmp_path / "deep" / "key.pem").stat().st_mode) == 0o600
    assert load_signer(tmp_path / "deep" / "key.pem").public_hex == public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    generate_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(UsageError):
        generate_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        generate_key(tmp_path / "key.pem")
    assert not (tmp_path / "elsewhere").exists()


def test_a_passphrase_encrypts_the_file(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key.pem", "correct horse")
    assert b"ENCRYPTED" in (tmp_path / "key.pem").read_bytes()
    assert load_signer(tmp_path / "key.pem", "correct horse").public_hex == public
    with pytest.raises(TrustError, match="cannot be read as a key"):
        load_signer(tmp_path / "key.pem", "wrong")
    with pytest.raises(TrustError, match="is encrypted"):
        load_signer(tmp_path / "key.pem")


def test_a_passphrase_for_an_open_key_is_an_error(tmp_path: Path) -> None:
    generate_key(tmp_path / "key.pem")
    with pytest.raises(TrustError, match="not encrypted"):
        load_signer(tmp_path / "key.pem", "anything")


def test_an_empty_passphrase_is_no_passphrase(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        generate_key(tmp_path / "key.pem", "")
    assert not (tmp_path / "key.pem").exists()


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in (("ec", other), ("text", b"not a key"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(TrustError):
            load_signer(tmp_path / name)
    with pytest.raises(NotFoundError):
        load_signer(tmp_path / "absent")


@settings(max_examples=25, deadline=None)
@given(payload=st.binary(max_size=2000))
def test_what_is_signed_comes_back_byte_for_byte(keys: list[Signer], payload: bytes) -> None:
    envelope = add_signature(sign_envelope(payload, KIND, keys[0]), keys[1])
    verified = verify_envelope(envelope, KIND, [key.public_hex for key in keys], 2)
    assert verified.payload == payload
    assert verified.signers == {keys[0].public_hex, keys[1].public_hex}
    assert unsafe_payload(envelope, KIND) == payload


@settings(max_examples=25, deadline=None)
@given(payload=st.binary(min_size=1, max_size=200), position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_changed_bit_of_the_payload_verifies_nowhere(
    keys: list[Signer], payload: bytes, position: int, bit: int
) -> None:
    changed = bytearray(payload)
    changed[position % len(payload)] ^= 1 << bit
    document = json.loads(sign_envelope(payload, KIND, keys[0]))
    document["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(TrustError):
        verify_envelope(json.dumps(document).encode(), KIND, [keys[0].public_hex], 1)


def test_signing_twice_with_one_key_counts_once(keys: list[Signer]) -> None:
    envelope = add_signature(sign_envelope(b"x", KIND, keys[0]), keys[0])
    assert unsafe_signature_count(envelope) == 1
    with pytest.raises(TrustError, match="1 of the 2"):
        verify_envelope(envelope, KIND, [key.public_hex for key in keys], 2)


def test_unknown_keys_do_not_count(keys: list[Signer]) -> None:
    envelope = add_signature(sign_envelope(b"x", KIND, keys[0]), keys[1])
    verified = verify_envelope(envelope, KIND, [keys[1].public_hex], 1)
    assert verified.signers == {keys[1].public_hex}
    with pytest.raises(TrustError):
        verify_envelope(envelope, KIND, [keys[2].public_hex], 1)
    with pytest.raises(TrustError):
        verify_envelope(envelope, KIND, [], 1)


def test_a_threshold_of_zero_is_a_mistake_of_the_caller(keys: list[Signer]) -> None:
    with pytest.raises(ValueError, match="accepts anything"):
        verify_envelope(sign_envelope(b"x", KIND, keys[0]), KIND, [keys[0].public_hex], 0)


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        b'{"payload":"eA==","payloadType":"application/vnd.test+yaml"}',
        b'{"payload":"!!","payloadType":"application/vnd.test+yaml","signatures":[]}',
        b'{"payload":"eA==","payloadType":"application/vnd.test+yaml","signatures":[],"more":1}',
        b'{"payload":"eA==","payload":"eQ==","payloadType":"application/vnd.test+yaml","signatures":[]}',
    ],
)
def test_what_is_no_envelope_is_refused(keys: list[Signer], envelope: bytes) -> None:
    with pytest.raises(TrustError):
        verify_envelope(envelope, KIND, [keys[0].public_hex], 1)
    with pytest.raises(TrustError):
        add_signature(envelope, keys[0])
