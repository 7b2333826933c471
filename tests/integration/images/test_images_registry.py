"""Images from a real OCI registry, with TLS and users: what moves, what goes on after a break, what other tools make of it."""

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board_kit import connect_proxy
from images_kit import ImageStation
from layer_kit import ordinary
from registry_kit import PASSWORD, REPOSITORY, USER, Registry, relay_to, running_registry
from tool_kit import Tool, make_bundle

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, WireError
from policies.wire.oci_auth import Credentials
from policies.wire.oci_trains import image_tag
from policies.wire.proxies import Proxy
from station.images.registry.client import RegistryClient
from station.images.registry.source import RegistrySource
from train_images.tool.folders import PackedTrain

MIB = 1 << 20
BASE = ordinary({"opt/base": random.Random(1).randbytes(6 * MIB)})


def train_layer(name: str) -> bytes:
    return ordinary({f"opt/{name}": random.Random(name).randbytes(20_000)})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def trains(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedTrain, ...]:
    """Two trains on one base, in the registry."""
    folder = tmp_path_factory.mktemp("bundles")
    credentials = folder / "credentials"
    credentials.write_text(f"{USER}:{PASSWORD}\n")
    credentials.chmod(0o600)
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        train = make_bundle(folder / name, layers=(BASE, train_layer(name)))
        done = subprocess.run(
            [sys.executable, "-m", "train_images.cli", "push", str(train.path), "--registry", registry.url,
             "--repository", REPOSITORY, "--ca", str(registry.ca), "--credentials-file", str(credentials)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append(train)
    return tuple(made)


Opened = Callable[..., RegistrySource]


@pytest.fixture
def opened(registry: Registry) -> Iterator[Opened]:
    """Open the registry as a source, as often as a test wants; closed at its end."""
    clients: list[RegistryClient] = []

    def open_one(url: str | None = None, **more: object) -> RegistrySource:
        clients.append(registry.client(url, **more))
        return RegistrySource(clients[-1])

    yield open_one
    for client in clients:
        client.close()


def station_of(root: Path, source: RegistrySource) -> ImageStation:
    return ImageStation(root, source)  # type: ignore[arg-type]


def test_an_image_is_found_by_its_config_and_a_second_one_moves_its_own_layer(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    station = station_of(tmp_path / "layers", opened())
    first, second = (train.index.config.digest for train in trains)
    whole = station.store.fetch(first)
    assert whole > 6 * MIB
    assert station.store.fetch(second) < 0.02 * whole
    for train in trains:
        text = station.store.manifest(train.index.config.digest, train.index.manifest.digest)
        assert digest_of(text) == train.index.manifest.digest
        for blob in train.index.layers:
            assert station.blobs.rehash(blob.digest) == blob.size
    assert {shown.record.source for shown in station.store.images()} == {"registry"}
    with pytest.raises(NotFoundError):
        station.store.fetch("sha256:" + "0" * 64)


def test_the_tool_sends_a_base_once(
    registry: Registry,
    opened: Opened,
    trains: tuple[PackedTrain, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"{USER}:{PASSWORD}")
    credentials.chmod(0o600)
    tool = Tool(capsys)
    third = make_bundle(tmp_path, layers=(BASE, train_layer("three")))
    sent = tool.json(
        "push", third.path, "--registry", registry.url, "--repository", REPOSITORY, "--ca", registry.ca,
        "--credentials-file", credentials,
    )  # fmt: skip
    assert sent["tag"] == image_tag(third.index.config.digest)
    assert sent["moved_bytes"] < 0.02 * len(BASE)
    credentials.chmod(0o644)
    tool("push", third.path, "--registry", registry.url, "--repository", REPOSITORY, "--credentials-file",
         credentials, code=3)  # type: ignore[arg-type]  # fmt: skip


def test_a_layer_that_packs_too_well_is_sent_as_it_is(
    registry: Registry, opened: Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"{USER}:{PASSWORD}")
    credentials.chmod(0o600)
    zeros = ordinary({"opt/zeros": b"\0" * (90 * MIB)})
    train = make_bundle(tmp_path / "zeros", layers=(zeros, train_layer("zeros")))
    where = (
        "--registry",
        registry.url,
        "--repository",
        REPOSITORY,
        "--ca",
        registry.ca,
        "--credentials-file",
        credentials,
    )
    tool = Tool(capsys)
    assert len(zeros) < tool.json("push", train.path, *where)["moved_bytes"] < len(zeros) + 100_000
    assert tool.json("push", train.path, *where)["moved_bytes"] == 0
    station = station_of(tmp_path / "layers", opened())
    assert station.store.fetch(train.index.config.digest) > len(zeros)
    assert station.blobs.rehash(digest_of(zeros)) == len(zeros)


def test_other_tools_read_and_copy_what_was_pushed(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    """As a consortium would that mirrors its trains into another repository."""
    tag, there = image_tag(trains[0].index.config.digest), f"docker://localhost:{registry.port}"
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.crt").write_bytes(registry.ca.read_bytes())
    where = [f"--{side}-{what}" for side in ("src", "dest") for what in ("cert-dir", "creds")]
    values = [str(tmp_path / "certificates"), f"{USER}:{PASSWORD}"] * 2
    options = [text for pair in zip(where, values, strict=True) for text in pair]
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", *options, f"{there}/{REPOSITORY}:{tag}", f"{there}/mirror/trains:{tag}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    station = station_of(tmp_path / "layers", opened(repository="mirror/trains"))
    assert station.store.fetch(trains[0].index.config.digest) > 6 * MIB


FETCHING = """
    import sys
    from pathlib import Path
    from images_kit import ImageStation
    from policies.wire.oci_auth import Credentials
    from station.images.registry.client import RegistryClient
    from station.images.registry.source import RegistrySource
    url, repository, ca, credentials, layers, image = sys.argv[1:]
    client = RegistryClient(url, repository, ca=Path(ca), credentials=Credentials.read(Path(credentials), "test"))
    ImageStation(Path(layers), RegistrySource(client)).store.fetch(image)
"""


def test_a_fetch_that_was_killed_in_the_middle_goes_on(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    image, layers = trains[0].index.config.digest, tmp_path / "layers"
    credentials = tmp_path / "credentials"
    credentials.write_text(f"{USER}:{PASSWORD}")
    credentials.chmod(0o600)
    with relay_to(registry.port) as relay:
        relay.limit, relay.stalls = 3 * MIB, True
        url = f"https://localhost:{relay.port}"
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(FETCHING), url, REPOSITORY, str(registry.ca), str(credentials),
             str(layers), image],
            env={"PYTHONPATH": ":".join(sys.path)},
        ) as fetching:  # fmt: skip
            try:
                assert relay.stopped.wait(120)
                # What passed the relay lies in buffers until the fetch has written it.
                deadline = time.monotonic() + 120
                while not any(path.stat().st_size for path in (layers / "incoming").glob("*")):
                    assert time.monotonic() < deadline
            finally:
                fetching.send_signal(signal.SIGKILL)
                assert fetching.wait(60) == -signal.SIGKILL
    (part,) = (layers / "incoming").iterdir()
    left = part.stat().st_size
    assert 0 < left < 3 * MIB
    station = station_of(layers, opened())
    assert station.store.images() == []
    moved = station.store.fetch(image)
    assert 3 * MIB < moved <= 6 * MIB + 100_000 - left
    assert station.blobs.rehash(digest_of(BASE)) == len(BASE)


def test_a_connection_that_breaks_is_taken_up_in_the_same_fetch(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    with relay_to(registry.port) as relay:
        relay.limit = 3 * MIB
        station = station_of(tmp_path / "layers", opened(f"https://localhost:{relay.port}"))
        moved = station.store.fetch(trains[0].index.config.digest)
        assert relay.stopped.is_set()
    # Nothing twice but what was on its way when it broke.
    assert 6 * MIB < moved < 6 * MIB + 100_000


def test_bytes_that_the_registry_changed_on_its_disk(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    station = station_of(tmp_path / "layers", opened())
    source = opened()
    (_, own) = source.find(trains[1].index.config.digest).layers
    kept = registry.blob(own.digest).read_bytes()
    registry.blob(own.digest).write_bytes(kept[:100] + bytes([kept[100] ^ 1]) + kept[101:])
    try:
        with pytest.raises(WireError):
            station.store.fetch(trains[1].index.config.digest)
    finally:
        registry.blob(own.digest).write_bytes(kept)
    assert own.diff_id not in station.kept()
    assert station.store.fetch(trains[1].index.config.digest) < 100_000


@pytest.mark.parametrize("credentials", [None, Credentials(USER, "wrong"), Credentials("", "a-token")])
def test_who_is_not_let_in(
    registry: Registry,
    opened: Opened,
    trains: tuple[PackedTrain, ...],
    tmp_path: Path,
    credentials: Credentials | None,
) -> None:
    station = station_of(tmp_path / "layers", opened(credentials=credentials))
    with pytest.raises(NetworkError) as caught:
        station.store.fetch(trains[0].index.config.digest)
    assert "registry_credentials_file" in caught.value.hint
    assert "wrong" not in f"{caught.value!r}{caught.value.__context__!r}{credentials!r}"


def test_another_authority_is_not_trusted(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    station = station_of(tmp_path / "layers", opened(ca=None))
    with pytest.raises(NetworkError, match="certificate"):
        station.store.fetch(trains[0].index.config.digest)


def test_through_the_hospital_s_proxy(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    with connect_proxy() as (proxy, asked):
        station = station_of(tmp_path / "layers", opened(proxy=Proxy(proxy)))
        assert station.store.fetch(trains[0].index.config.digest) > 6 * MIB
    assert set(asked) == {f"localhost:{registry.port}"}


def test_each_request_is_announced_before_it_is_made(
    registry: Registry, opened: Opened, trains: tuple[PackedTrain, ...], tmp_path: Path
) -> None:
    announced: list[int] = []

    def announce() -> None:
        announced.append(1)

    station_of(tmp_path / "layers", opened(announce=announce)).store.fetch(trains[0].index.config.digest)
    # A manifest (twice: it wants to know who asks), a config, two layers.
    assert len(announced) == 5
