"""Bundles from an orchestrator over real HTTPS: only what is missing moves, and nothing is taken on its word."""

import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_kit import https_server
from cryptography.hazmat.primitives.asymmetric import ec
from images_kit import ImageStation, layer_of

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, WireError
from policies.image_config import config_without_program
from station.agent.blobs import BlobClient
from station.images.orchestrator import OrchestratorBundles
from station.images.store import LayerStore

LAYERS = (layer_of("one"), layer_of("two", 900))
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in LAYERS]}}
).encode()  # fmt: skip
IMAGE = digest_of(CONFIG)
MANIFESTS = (b"name: one\n", b"name: two\n")


def blob(data: bytes, **changes: Any) -> dict[str, Any]:
    return {"digest": digest_of(data), "size": len(data), **changes}


def index(
    manifest: bytes = MANIFESTS[0], layers: tuple[bytes, ...] = LAYERS, **changes: Any
) -> dict[str, Any]:
    return {
        "config": blob(CONFIG),
        "layers": [blob(data) for data in layers],
        "manifest": blob(manifest),
        **changes,
    }


class Shelves:
    """What the orchestrator answers with."""

    def __init__(self) -> None:
        self.blobs = {digest_of(data): data for data in (CONFIG, *LAYERS, *MANIFESTS)}
        self.bundles: Any = {"bundles": [index(MANIFESTS[0]), index(MANIFESTS[1])]}
        self.asked: list[str] = []
        self.signed: list[bool] = []


@pytest.fixture
def shelves() -> Shelves:
    return Shelves()


@pytest.fixture
def bundles(tmp_path: Path, shelves: Shelves) -> Iterator[LayerStore]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shelves.asked.append(self.path)
            shelves.signed.append(any("signature" in name.lower() for name in self.headers))
            if "/by-image/" in self.path:
                body = (
                    shelves.bundles
                    if isinstance(shelves.bundles, bytes)
                    else json.dumps(shelves.bundles).encode()
                )
            else:
                body = shelves.blobs.get(self.path.rpartition("/")[2], b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    (tmp_path / "layers").mkdir()
    with https_server(Handler) as (url, authority):
        ca = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        key = ec.generate_private_key(ec.SECP256R1())
        client = BlobClient(url, ca, key)
        source = OrchestratorBundles(url, ca, key, client, tmp_path / "work")
        yield ImageStation(tmp_path / "layers", source).store  # type: ignore[arg-type]
        source.close()
        client.close()


def stored(tmp_path: Path) -> set[str]:
    return {"sha256:" + path.name for path in (tmp_path / "layers" / "sha256").glob("*")}


def test_what_is_there_does_not_move_again(bundles: LayerStore, shelves: Shelves, tmp_path: Path) -> None:
    assert bundles.fetch(IMAGE) == len(CONFIG) + sum(map(len, LAYERS))
    assert stored(tmp_path) == {IMAGE, *map(digest_of, LAYERS)}
    shelves.asked.clear()
    assert bundles.fetch(IMAGE) == 0
    assert shelves.asked == [], "what is whole needs no network"
    assert all(shelves.signed)


@pytest.mark.parametrize("number", [0, 1])
def test_the_manifest_that_the_policy_names_is_found_among_several(
    bundles: LayerStore, shelves: Shelves, number: int
) -> None:
    wanted = MANIFESTS[number]
    assert bundles.manifest(IMAGE, digest_of(wanted)) == wanted
    shelves.asked.clear()
    assert bundles.manifest(IMAGE, digest_of(wanted)) == wanted
    assert shelves.asked == [], "kept, so that a message asks no network"


def test_of_a_train_without_a_program_the_manifest_comes_and_no_image(
    bundles: LayerStore, shelves: Shelves, tmp_path: Path
) -> None:
    config = config_without_program("who", "1.0.0")
    shelves.blobs[digest_of(config)] = config
    shelves.bundles = {"bundles": [index(config=blob(config), layers=())]}
    assert bundles.manifest(digest_of(config), digest_of(MANIFESTS[0])) == MANIFESTS[0]
    with pytest.raises(WireError):
        bundles.fetch(digest_of(config))
    assert stored(tmp_path) == {digest_of(MANIFESTS[0])}


def test_a_manifest_that_is_not_there(bundles: LayerStore, shelves: Shelves) -> None:
    with pytest.raises(NotFoundError, match="another manifest"):
        bundles.manifest(IMAGE, "sha256:" + "0" * 64)


@pytest.mark.parametrize("which", [CONFIG, LAYERS[1]])
def test_bytes_that_are_not_their_digest_are_not_kept(
    bundles: LayerStore, shelves: Shelves, tmp_path: Path, which: bytes
) -> None:
    shelves.blobs[digest_of(which)] = which[:-1] + b"!"
    with pytest.raises(WireError):
        bundles.fetch(IMAGE)
    assert digest_of(which) not in stored(tmp_path)


@pytest.mark.parametrize(
    "lie",
    [
        {"bundles": [index(layers=LAYERS[:1])]},
        {"bundles": [index(layers=(LAYERS[1], LAYERS[0]))]},
        {"bundles": [index(layers=(*LAYERS, b"more"))]},
    ],
)
def test_an_index_that_lists_other_layers_than_the_config(
    bundles: LayerStore, shelves: Shelves, lie: Any
) -> None:
    shelves.bundles = lie
    with pytest.raises(WireError):
        bundles.fetch(IMAGE)


@pytest.mark.parametrize(
    "nonsense",
    [b"{", b"[]", b"{}", b'{"bundles": 1}', b'{"bundles": [1]}', b'{"bundles": [{}]}', b"x" * 100,
     {"bundles": [index(config=blob(b"another image"))]}, {"bundles": [index(config=blob(CONFIG, size=2**40))]},
     {"bundles": [index() | {"manifest": blob(MANIFESTS[0], size=2**30)}]}],
)  # fmt: skip
def test_an_index_that_is_none(bundles: LayerStore, shelves: Shelves, nonsense: Any) -> None:
    shelves.bundles = nonsense
    with pytest.raises(NetworkError):
        bundles.fetch(IMAGE)


def test_an_image_that_nobody_has(bundles: LayerStore, shelves: Shelves) -> None:
    shelves.bundles = {"bundles": []}
    with pytest.raises(NotFoundError):
        bundles.fetch(IMAGE)
    shelves.bundles = b""
    with pytest.raises(NotFoundError):
        bundles.fetch(IMAGE)
