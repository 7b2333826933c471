"""Trains between ordinary tools, a real registry, a station and an orchestrator: each can stand where another one stood."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from images_kit import ImageStation
from oci_kit import Oci, certificates, party, random_bytes, skopeo, tool
from orchestrator_site import Site, site
from registry_kit import PASSWORD, REPOSITORY, USER, Registry, relay_to, running_registry
from tool_kit import Tool, layer, make_bundle

from orchestrator.registry.access import Role
from policies.documents import digest_of
from policies.errors import NetworkError
from policies.wire.oci_auth import Credentials
from station.images.registry.client import RegistryClient
from station.images.registry.source import RegistrySource
from train_images.tool.folders import PackedTrain

MIB = 1 << 20


@dataclass
class World:
    place: Site
    registry: Registry
    train: PackedTrain
    token: str
    ours: Path
    theirs: Path

    @property
    def host(self) -> str:
        return self.place.url.removeprefix("https://")

    @property
    def image(self) -> str:
        return f"docker://{self.host}/trivial"

    @property
    def tag(self) -> str:
        return "cfg-" + self.train.index.config.digest[7:]

    @property
    def text_tag(self) -> str:
        return "train-" + self.train.index.manifest.digest[7:]

    def from_ours(self) -> tuple[object, ...]:
        return ("--src-creds", f"anybody:{self.token}", "--src-cert-dir", self.ours)

    def to_theirs(self) -> tuple[object, ...]:
        return ("--dest-creds", f"{USER}:{PASSWORD}", "--dest-cert-dir", self.theirs)

    def client(self, port: int) -> RegistryClient:
        """The station's own fetcher, at the orchestrator's /v2/."""
        credentials = Credentials("anybody", self.token)
        return RegistryClient(
            f"https://localhost:{port}", "trivial", ca=self.place.ca, credentials=credentials
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An orchestrator and a real registry; the train is pushed to the first."""
    folder = tmp_path_factory.mktemp("oci-tools")
    (folder / "registry").mkdir()
    (folder / "train").mkdir()
    train = make_bundle(
        folder / "train",
        layers=(layer({"opt/base": random_bytes(6 * MIB)}), layer({"opt/pht/train.json": b"{}"})),
    )
    with site(folder / "site") as place, running_registry(folder / "registry") as registry:
        token = place.services.access.new_token(Role.RESEARCHER, "alice")
        ours, theirs = certificates(folder / "certs", (place.url, place.ca), (registry.url, registry.ca))
        yield World(place, registry, train, token, ours, theirs)


@pytest.fixture(scope="module")
def pushed(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """`pht-train push` to the orchestrator, as to any registry."""
    from policies.console import run
    from train_images.cli import app

    credentials = tmp_path_factory.mktemp("credentials") / "file"
    credentials.write_text(f"anybody:{world.token}\n")
    credentials.chmod(0o600)
    done = run(app, ["push", str(world.train.path), "--registry", world.place.url, "--repository", "trivial",
                     "--ca", str(world.place.ca), "--credentials-file", str(credentials)])  # fmt: skip
    assert done == 0
    return world


def test_what_is_pushed_is_a_bundle_and_pushed_again_nothing_moves(
    pushed: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = pushed.place.client(Role.BOARD).find_bundle(pushed.train.index.config.digest)
    assert index == pushed.train.index
    credentials = tmp_path / "token"
    credentials.write_text(pushed.token)
    credentials.chmod(0o600)
    sent = Tool(capsys).json(
        "push", pushed.train.path, "--registry", pushed.place.url, "--repository", "trivial", "--ca",
        pushed.place.ca, "--credentials-file", credentials,
    )  # fmt: skip
    assert (sent["tag"], sent["moved_bytes"]) == (pushed.tag, 0)


def test_skopeo_looks_lists_and_copies_out(pushed: World, tmp_path: Path) -> None:
    creds = ("--creds", f"anybody:{pushed.token}", "--cert-dir", pushed.ours)
    shown = json.loads(skopeo("inspect", *creds, f"{pushed.image}:1.0.0"))
    assert shown["RepoTags"] == ["1.0.0", "1.0.0-cpu", pushed.tag, pushed.text_tag]
    listed = json.loads(skopeo("list-tags", *creds, pushed.image))
    assert listed["Tags"] == shown["RepoTags"]
    raw = skopeo("inspect", "--raw", *creds, f"{pushed.image}:{pushed.tag}")
    assert digest_of(raw.encode()) == shown["Digest"]
    skopeo("copy", *pushed.from_ours(), f"{pushed.image}@{shown['Digest']}", f"dir:{tmp_path}/out")
    for each in json.loads(raw)["layers"]:
        assert digest_of((tmp_path / "out" / each["digest"][7:]).read_bytes()) == each["digest"]


def test_a_real_registry_stands_in_with_no_more_than_the_image(pushed: World, tmp_path: Path) -> None:
    there = f"docker://localhost:{pushed.registry.port}/{REPOSITORY}:{pushed.tag}"
    skopeo("copy", "--preserve-digests", *pushed.from_ours(), *pushed.to_theirs(),
         f"{pushed.image}:{pushed.tag}", there)  # fmt: skip
    client = pushed.registry.client()
    station = ImageStation(tmp_path / "layers", RegistrySource(client))  # type: ignore[arg-type]
    station.store.fetch(pushed.train.index.config.digest)
    # No blob of the registry: it came with the image's manifest.
    text = station.store.manifest(pushed.train.index.config.digest, pushed.train.index.manifest.digest)
    assert digest_of(text) == pushed.train.index.manifest.digest
    for each in pushed.train.index.layers:
        assert station.blobs.rehash(each.digest) == each.size
    client.close()


def test_a_train_comes_back_from_a_real_registry(pushed: World, tmp_path: Path) -> None:
    there = f"docker://localhost:{pushed.registry.port}/other/place"
    for tag in (pushed.tag, pushed.text_tag):
        skopeo("copy", "--preserve-digests", *pushed.from_ours(), *pushed.to_theirs(),
             f"{pushed.image}:{tag}", f"{there}:{tag}")  # fmt: skip
    with site(tmp_path / "second") as second:
        token = second.services.access.new_token(Role.RESEARCHER, "bob")
        (certificate,) = certificates(tmp_path / "certs", (second.url, second.ca))
        for tag, name in ((pushed.tag, "1.0.0"), (pushed.text_tag, pushed.text_tag)):
            skopeo("copy", "--src-creds", f"{USER}:{PASSWORD}", "--src-cert-dir", pushed.theirs,
                 "--dest-creds", f"anybody:{token}", "--dest-cert-dir", certificate, f"{there}:{tag}",
                 f"docker://{second.url[8:]}/trivial:{name}")  # fmt: skip
        assert second.client(Role.BOARD).find_bundle(pushed.train.index.config.digest) == pushed.train.index
        board = party(second, Role.BOARD, "board")
        mine = party(pushed.place, Role.BOARD, "board")
        for tag in ("1.0.0", pushed.tag, pushed.text_tag):
            assert _digest(board, tag) == _digest(mine, tag)
        board.close()
        mine.close()


def _digest(oci: Oci, tag: str) -> str:
    return str(oci("HEAD", f"/v2/trivial/manifests/{tag}").headers["docker-content-digest"])


def test_the_stations_fetcher_pulls_from_the_orchestrator_and_goes_on_after_a_break(
    pushed: World, tmp_path: Path
) -> None:
    config = pushed.train.index.config.digest
    port = pushed.place.services.settings.front.port
    with relay_to(port) as relay:
        relay.limit = 3 * MIB
        client = pushed.client(relay.port)
        station = ImageStation(tmp_path / "layers", RegistrySource(client))  # type: ignore[arg-type]
        moved = station.store.fetch(config)
        assert relay.stopped.is_set()
        # What came before the break came once.
        assert 6 * MIB < moved < 7 * MIB
        text = station.store.manifest(config, pushed.train.index.manifest.digest)
        client.close()
    assert digest_of(text) == pushed.train.index.manifest.digest
    for each in pushed.train.index.layers:
        assert station.blobs.rehash(each.digest) == each.size


def test_a_wrong_token_is_a_clear_error(pushed: World, tmp_path: Path) -> None:
    client = RegistryClient(
        pushed.place.url, "trivial", ca=pushed.place.ca, credentials=Credentials("anybody", "pht_wrong")
    )
    station = ImageStation(tmp_path / "layers", RegistrySource(client))  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="does not let us in"):
        station.store.fetch(pushed.train.index.config.digest)
    client.close()


@pytest.mark.docker
def test_docker_pulls_by_digest(pushed: World, tmp_path: Path) -> None:
    trusted = Path("/etc/docker/certs.d") / pushed.host
    trusted.mkdir(parents=True)
    try:
        shutil.copyfile(pushed.place.ca, trusted / "ca.crt")
        auth = base64.b64encode(f"anybody:{pushed.token}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {pushed.host: {"auth": auth}}}))
        board = party(pushed.place, Role.BOARD, "board")
        name = f"{pushed.host}/trivial@{_digest(board, '1.0.0')}"
        board.close()
        docker = ("docker", "--config", tmp_path)
        try:
            tool(*docker, "pull", name)
            shown = json.loads(tool(*docker, "image", "inspect", name))
            assert shown[0]["RootFS"]["Layers"] == [each.digest for each in pushed.train.index.layers]
        finally:
            subprocess.run(["docker", "rmi", name], capture_output=True, check=False, timeout=120)
    finally:
        shutil.rmtree(trusted)
