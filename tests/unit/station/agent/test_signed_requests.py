"""Signed HTTP requests: what was signed verifies, and nothing else does."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from policies.errors import WireError
from policies.wire.http import (
    DIGEST_HEADER,
    EMPTY_DIGEST,
    KEY_HEADER,
    MAX_SKEW_S,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    RequestSignatureError,
    key_fingerprint,
    load_private_key,
    load_public_key,
    openssh_public_key,
    sign_request,
    verify_request,
)

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP384R1())
TARGET = "/api/v1/blobs/sha256:00?order=sha256:11"


def _headers(**changes: str) -> dict[str, str]:
    return sign_request(KEY, "PUT", TARGET, "sha256:ab", now=NOW) | changes


def test_a_signed_request_names_its_key_and_body() -> None:
    assert verify_request("PUT", TARGET, _headers(), now=NOW) == (
        key_fingerprint(KEY.public_key()),
        "sha256:ab",
    )


def test_header_names_count_in_any_case() -> None:
    lower = {name.lower(): value for name, value in _headers().items()}
    assert verify_request("PUT", TARGET, lower, now=NOW)[1] == "sha256:ab"


@pytest.mark.parametrize(
    ("method", "target"), [("GET", TARGET), ("PUT", TARGET + "0"), ("PUT", TARGET.split("?", maxsplit=1)[0])]
)
def test_another_method_or_target_does_not_verify(method: str, target: str) -> None:
    with pytest.raises(RequestSignatureError):
        verify_request(method, target, _headers(), now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {DIGEST_HEADER: EMPTY_DIGEST},
        {TIMESTAMP_HEADER: str(int(NOW) + 1)},
        {TIMESTAMP_HEADER: "now"},
        {TIMESTAMP_HEADER: "-1"},
        {TIMESTAMP_HEADER: "\u0661\u0662"},
        {SIGNATURE_HEADER: "AAAA"},
        {SIGNATURE_HEADER: "not base64!"},
        {KEY_HEADER: "AAAA"},
        {KEY_HEADER: "x" * 5000},
    ],
)
def test_an_altered_header_does_not_verify(changes: dict[str, str]) -> None:
    with pytest.raises(RequestSignatureError):
        verify_request("PUT", TARGET, _headers(**changes), now=NOW)


@pytest.mark.parametrize("name", [KEY_HEADER, TIMESTAMP_HEADER, DIGEST_HEADER, SIGNATURE_HEADER])
def test_a_missing_header_is_named(name: str) -> None:
    headers = _headers()
    del headers[name]
    with pytest.raises(RequestSignatureError, match=name):
        verify_request("PUT", TARGET, headers, now=NOW)


def test_a_header_twice_is_refused() -> None:
    with pytest.raises(RequestSignatureError, match="twice"):
        verify_request("PUT", TARGET, _headers() | {"pht-key": "AAAA"}, now=NOW)


@pytest.mark.parametrize("late_s", [MAX_SKEW_S + 1, -MAX_SKEW_S - 2])
def test_an_old_or_early_request_is_refused(late_s: float) -> None:
    with pytest.raises(RequestSignatureError, match="clock"):
        verify_request("PUT", TARGET, _headers(), now=NOW + late_s)


def test_a_key_of_another_kind_is_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    der = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(RequestSignatureError, match="elliptic"):
        verify_request(
            "PUT", TARGET, _headers(**{KEY_HEADER: __import__("base64").b64encode(der).decode()}), now=NOW
        )


def test_keys_are_read_in_both_forms(tmp_path) -> None:  # noqa: ANN001 - pytest's
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    openssh = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    for form in (pem, openssh):
        path = tmp_path / "node.key"
        path.write_bytes(form)
        assert load_private_key(path).private_numbers() == KEY.private_numbers()
    assert key_fingerprint(load_public_key(openssh_public_key(KEY.public_key()))) == key_fingerprint(
        KEY.public_key()
    )


@pytest.mark.parametrize("text", [b"", b"nonsense", b"ssh-ed25519 AAAA", b"-----BEGIN PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(text: bytes, tmp_path) -> None:  # noqa: ANN001 - pytest's
    with pytest.raises(WireError):
        load_public_key(text)
    path = tmp_path / "node.key"
    path.write_bytes(text)
    with pytest.raises(WireError):
        load_private_key(path)
