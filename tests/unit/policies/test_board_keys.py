"""Keys that no file of ours holds: any securesystemslib signer by its URI, with a real key behind it."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board_desk import Desk, publish, verified
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, Key, Signature
from securesystemslib.signer import Signer as SecureSystemsSigner

from policies.errors import ExitCode, TrustError
from policies.external_signers import is_signer_uri, load_external_signer
from policies.signing import generate_key, sign_envelope, verify_envelope


class Device:
    """What holds a key and gives signatures over a Unix socket, as a card or a signing service does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "device.sock"
        self.private = Ed25519PrivateKey.generate()
        self.public_hex = self.private.public_key().public_bytes_raw().hex()
        self.asked = 0
        device = self

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                size = int.from_bytes(self.rfile.read(4), "big")
                device.asked += 1
                self.wfile.write(device.private.sign(self.rfile.read(size)))

        self.server = socketserver.ThreadingUnixStreamServer(str(self.path), Answer)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()
            self.path.unlink()


class DeviceSigner(SecureSystemsSigner):
    """``device:<socket>``: the signer a site would register for its device."""

    def __init__(self, path: str, key: Key) -> None:
        self._path = path
        self._key = key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> "DeviceSigner":
        if secrets_handler is None or secrets_handler("PIN") != "1234":
            raise PermissionError("the PIN that was given is wrong")
        return cls(priv_key_uri.partition(":")[2], public_key)

    @property
    def public_key(self) -> Key:
        return self._key

    def sign(self, payload: bytes) -> Signature:
        import socket

        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self._path)
            link.sendall(len(payload).to_bytes(4, "big") + payload)
            return Signature(self._key.keyid, link.makefile("rb").read(64).hex())


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "device", DeviceSigner)
    found = Device(tmp_path)
    yield found
    found.close()


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    file = tmp_path / "pin"
    file.write_text("1234\n")
    return file


def test_a_device_signs_policies_roots_publications_and_timestamps(
    drafted: Desk, device: Device, pin: Path
) -> None:
    board = drafted
    (board / "device.pub").write_text(device.public_hex + "\n")
    uri = ("-k", f"device:{device.path}", "--public", board / "device.pub", "--passphrase-file", pin)
    # The member's key moves to the device, and the secretary's.
    board(
        "rotate",
        board / "repo",
        "--member",
        f"Alice={board / 'device.pub'}",
        "--secretary-key",
        device.public_hex,
    )
    board("sign", "--root", board / "repo", "-k", board / "bob.pem", "--yes")
    board("sign", "--root", board / "repo", "-k", board / "carol.pem", "--yes")
    assert board.json("member", "show", *uri) == {"public_key": device.public_hex}
    board("sign", board / "policy.yaml", *uri, "--yes", "--conditions", "Once only.")
    board("sign", board / "policy.yaml", "-k", board / "carol.pem", "--yes")
    board("publish", board / "policy.yaml", "-r", board / "repo", *uri, "--to", board / "mirror")
    publish_nothing = ("witness", "-r", board / "repo", "-k", board / "witness.pem", "--once")
    board(*publish_nothing, "--publish-to", board / "mirror")
    (found,) = verified(board)["policies"]  # type: ignore[misc]
    assert found["opinions"] == ["Alice (clinician) approves under conditions: Once only."]
    assert device.asked == 4, "the policy, the conditions, targets and snapshot"


def test_a_device_can_be_a_member_of_the_root(board: Desk, device: Device, pin: Path) -> None:
    (board / "device.pub").write_text(device.public_hex + "\n")
    board("rotate", board / "repo", "--member", f"Bob={board / 'device.pub'}")
    for name in ("alice", "carol"):
        board("sign", "--root", board / "repo", "-k", board / f"{name}.pem", "--yes")
    board("rotate", board / "repo")
    uri = ("-k", f"device:{device.path}", "--public", device.public_hex, "--passphrase-file", pin)
    board("sign", "--root", board / "repo", *uri, "--yes")
    assert "in force" in board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")


def test_the_librarys_own_file_signer(drafted: Desk) -> None:
    board = drafted
    uri = ("-k", f"file2:{board / 'alice.pem'}", "--public", board / "alice.pub")
    board("sign", board / "policy.yaml", *uri, "--yes")
    board("sign", board / "policy.yaml", "-k", board / "carol.pem", "--yes")
    publish(board, board / "policy.yaml")
    assert len(verified(board)["policies"]) == 1  # type: ignore[arg-type]


def test_a_file_that_others_can_read_is_refused_by_that_signer_too(drafted: Desk) -> None:
    board = drafted
    (board / "alice.pem").chmod(0o644)
    uri = ("-k", f"file2:{board / 'alice.pem'}", "--public", board / "alice.pub")
    board("sign", board / "policy.yaml", *uri, "--yes", code=ExitCode.TRUST)
    assert "can read the key" in board.err


@pytest.mark.parametrize(
    ("uri", "code", "says"),
    [
        ("hsm:2?label=YubiKey", ExitCode.TRUST, "hsm"),
        (
            "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            ExitCode.TRUST,
            "gcpkms",
        ),
        ("hv:key/1", ExitCode.TRUST, "hv"),
        ("file2:/nowhere.pem", ExitCode.TRUST, "cannot be read"),
        ("carrier:pigeon", ExitCode.USAGE, "no signer of this kind"),
    ],
)
def test_a_signer_that_cannot_be_had_says_which(drafted: Desk, uri: str, code: ExitCode, says: str) -> None:
    board = drafted
    board(
        "sign",
        board / "policy.yaml",
        "-k",
        uri,
        "--public",
        board / "alice.pub",
        "--yes",
        "--passphrase",
        "x",
        code=code,
    )
    assert says in board.err
    assert not (board / "policy.yaml.dsse.json").exists()


def test_a_library_that_is_missing_is_named(drafted: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from securesystemslib.exceptions import UnsupportedLibraryError

    class Absent(DeviceSigner):
        def __init__(self, path: str, key: Key) -> None:
            raise UnsupportedLibraryError("pip install something")

    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "absent", Absent)
    with pytest.raises(TrustError, match="absent: the library that this signer needs is not installed"):
        load_external_signer("absent:x", (drafted / "alice.pub").read_text().strip(), lambda _: "1234")


def test_a_uri_needs_its_public_key(drafted: Desk) -> None:
    board = drafted
    board("sign", board / "policy.yaml", "-k", f"file2:{board / 'alice.pem'}", "--yes", code=ExitCode.USAGE)
    assert "--public" in board.err


def test_another_key_behind_the_uri_signs_nothing(drafted: Desk, device: Device, pin: Path) -> None:
    board = drafted
    uri = ("-k", f"device:{device.path}", "--public", board / "alice.pub", "--passphrase-file", pin)
    board("sign", board / "policy.yaml", *uri, "--yes", code=ExitCode.TRUST)
    assert "another key than --public names" in board.err
    assert not (board / "policy.yaml.dsse.json").exists()
    board(
        "sign",
        board / "policy.yaml",
        "-k",
        board / "bob.pem",
        "--public",
        board / "alice.pub",
        "--yes",
        code=ExitCode.TRUST,
    )


def test_a_signers_own_text_is_not_shown(drafted: Desk, device: Device) -> None:
    board = drafted
    uri = ("-k", f"device:{device.path}", "--public", device.public_hex, "--passphrase", "PIN that was given")
    board("sign", board / "policy.yaml", *uri, "--yes", code=ExitCode.TRUST)
    assert "PIN that was given" not in board.err
    assert "PermissionError" in board.err


def test_a_device_that_fails_publishes_nothing(drafted: Desk, device: Device, pin: Path) -> None:
    board = drafted
    board("rotate", board / "repo", "--secretary-key", device.public_hex)
    for name in ("alice", "carol"):
        board("sign", "--root", board / "repo", "-k", board / f"{name}.pem", "--yes")
    device.close()
    uri = ("-k", f"device:{device.path}", "--public", device.public_hex, "--passphrase-file", pin)
    board("publish", "-r", board / "repo", *uri, code=ExitCode.TRUST)
    assert "the signer did not sign" in board.err
    assert not (board / "repo" / "metadata" / "1.targets.json").exists()


def test_a_file_whose_name_looks_like_a_uri_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys:alice"
    public_hex = generate_key(path)
    assert not is_signer_uri(str(path))
    assert is_signer_uri("file2:keys/alice.pem")
    signer = load_external_signer(f"file2:{path}", public_hex, lambda _: "")
    assert verify_envelope(sign_envelope(b"words", "x/y", signer), "x/y", [public_hex], 1).signers == {
        public_hex
    }
