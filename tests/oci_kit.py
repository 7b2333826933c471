"""The orchestrator's distribution API as its tests speak to it: by plain requests, as the specification has them."""

import base64
import gzip
import hashlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from layer_kit import ordinary
from orchestrator_site import Site
from tool_kit import MANIFEST, make_bundle

from orchestrator.registry.access import Role
from orchestrator.settings import Home
from policies.documents import canonical_json, digest_of
from policies.tls import client_context
from policies.wire.oci_trains import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, train_annotation
from train_images.tool.folders import PackedTrain

MIB = 1 << 20
BASE = ordinary({"opt/base": random.Random(11).randbytes(2 * MIB)})


def train_named(folder: Path, name: str, version: str = "1.0.0") -> PackedTrain:
    """A bundle of two layers, one of them common to all trains."""
    folder.mkdir(parents=True, exist_ok=True)
    text = MANIFEST.replace("name: trivial", f"name: {name}").replace("version: 1.0.0", f"version: {version}")
    return make_bundle(
        folder, manifest=text, layers=(BASE, ordinary({f"opt/{name}": f"{name} {version}".encode() * 50}))
    )


def blob(train: PackedTrain, digest: str) -> bytes:
    return train.store.path(digest).read_bytes()


@dataclass
class Oci:
    """One party's plain requests."""

    http: httpx.Client

    def __post_init__(self) -> None:
        # A machine that is busy elsewhere is no fault of the server.
        self.http.timeout = httpx.Timeout(300)

    def close(self) -> None:
        self.http.close()

    def __call__(self, method: str, target: str, **more: Any) -> httpx.Response:
        return self.http.request(method, target, **more)

    def code(self, method: str, target: str, status: int, **more: Any) -> str:
        """Ask for what is refused; returns the specification's code."""
        answer = self(method, target, **more)
        assert answer.status_code == status, (answer.status_code, answer.content[:300])
        (error,) = answer.json()["errors"]
        assert set(error) == {"code", "message", "detail"}
        return str(error["code"])

    def send(self, repository: str, data: bytes) -> str:
        """Send a blob: POST, then PUT (end-4a, end-6)."""
        begun = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.content
        done = self("PUT", begun.headers["location"], params={"digest": digest_of(data)}, content=data)
        assert done.status_code == 201, done.content
        return digest_of(data)

    def put_manifest(
        self, repository: str, reference: str, body: bytes, media: str = OCI_MANIFEST
    ) -> httpx.Response:
        return self(
            "PUT", f"/v2/{repository}/manifests/{reference}", content=body, headers={"content-type": media}
        )

    def push(self, train: PackedTrain, reference: str | None = None, **changes: Any) -> httpx.Response:
        """Push a train as an image with its layers packed."""
        name = train.manifest.name
        for digest in (train.index.config.digest, *(layer.digest for layer in train.index.layers)):
            data = blob(train, digest)
            self.send(name, data if digest == train.index.config.digest else packed(data))
        return self.put_manifest(name, reference or train.manifest.version, image(train, **changes))


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def described(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def image(train: PackedTrain, **changes: Any) -> bytes:
    """The image manifest of a train whose layers are packed."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(blob(train, train.index.config.digest), OCI_CONFIG),
        "layers": [
            described(packed(blob(train, each.digest)), OCI_LAYER + "+gzip") for each in train.index.layers
        ],
        "annotations": train_annotation(blob(train, train.index.manifest.digest)),
    }
    return canonical_json(document | changes)


def basic(token: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def party(place: Site, role: Role | None = Role.RESEARCHER, name: str = "alice") -> Oci:
    """A party with a token, as an ordinary tool shows it."""
    if role is None:
        return Oci(place.raw())
    return Oci(place.raw(Authorization=basic(place.services.access.new_token(role, name))))


_SERVER = """
import socket, sys
from pathlib import Path
from orchestrator.front.server import run_front
from orchestrator.services import open_services
from orchestrator.settings import Home
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[2])))
listener.listen()
print(listener.getsockname()[1], flush=True)
run_front(open_services(Home(Path(sys.argv[1]))), listener)
"""


@contextmanager
def front_process(home: Home, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The public port as a process that can be killed; yields it and its port."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SERVER), str(home.path), str(port)], stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(60)


def half_a_request(port: int, ca: Path, head: str, part: bytes) -> ssl.SSLSocket:
    """Begin a request whose body does not come whole; returns the open connection."""
    raw = socket.create_connection(("localhost", port), timeout=60)
    line = client_context(ca).wrap_socket(raw, server_hostname="localhost")
    line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + part)
    return line


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def sha256_of_file(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def certificates(folder: Path, *places: tuple[str, Path]) -> list[Path]:
    """A folder per registry as skopeo and Docker want it: the authority as ``ca.crt``."""
    made = []
    for address, ca in places:
        made.append(folder / address.removeprefix("https://").replace(":", "_"))
        made[-1].mkdir(parents=True, exist_ok=True)
        (made[-1] / "ca.crt").write_bytes(ca.read_bytes())
    return made


def tool(*arguments: object, timeout_s: float = 120) -> str:
    """Run an ordinary program; returns what it printed."""
    done = subprocess.run(
        [str(each) for each in arguments], capture_output=True, text=True, timeout=timeout_s, check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": "/tmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: object) -> str:
    """Run skopeo, which needs no policy of its machine for this."""
    return tool("skopeo", "--insecure-policy", *arguments)
