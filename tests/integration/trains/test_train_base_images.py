"""The base images as they are: what they lack, what they weigh, on what they stand, and that they are made once."""

import io
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from registry_kit import plain_registry
from tool_kit import Tool
from trains_kit import TRAINS

from policies.errors import UnavailableError
from policies.files import exclusive_lock
from train_images.base.build import BASE_IMAGE, LOCK, TORCH_IMAGE, build_base_images
from train_images.base.debian import make_base_image
from train_images.base.engine import inspect_image
from train_images.base.lock import BASE_LIST, HERE, TORCH_LISTS, read_inputs, versions
from train_images.tool import building

pytestmark = pytest.mark.docker

SYSTEM = "pht-test-system:1"


def docker(*arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, check=False, capture_output=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    build_base_images(lambda _line: None)


def test_the_images_lack_what_the_lists_leave_out_and_nothing_else() -> None:
    """pip looks at every package's own word on what it needs, version by version."""
    left_out = set[str]()
    for name in (BASE_LIST, TORCH_LISTS[0]):
        left_out |= read_inputs((HERE / name).with_suffix(".in")).without
    said = docker("run", "--rm", "--network=none", TORCH_IMAGE, "pip", "check", check=False).splitlines()
    missing = [re.fullmatch(r"\S+ \S+ requires (\S+), which is not installed\.", line) for line in said]
    assert all(missing), said
    assert {canonicalize_name(each[1]) for each in missing if each} == left_out


def test_the_images_hold_the_lists_versions() -> None:
    said = docker("run", "--rm", "--network=none", TORCH_IMAGE, "pip", "list", "--format=freeze").splitlines()
    found = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in said}
    assert found.pop("pip")
    assert found == {**versions(HERE / BASE_LIST), **versions(HERE / TORCH_LISTS[0])}


def test_the_layers_are_smaller_than_what_pip_installs() -> None:
    """As ratios, against this machine's own installation of the same packages."""
    base, torch = inspect_image(BASE_IMAGE), inspect_image(TORCH_IMAGE)
    assert base is not None
    assert torch is not None
    ours = torch.size_bytes - base.size_bytes
    installed = sum(map(_installed_bytes, versions(HERE / TORCH_LISTS[0])))
    assert installed > 600e6
    assert ours < 0.8 * installed
    assert base.size_bytes < 0.35 * torch.size_bytes


def _installed_bytes(name: str) -> int:
    try:
        files = distribution(name).files or ()
    except PackageNotFoundError:
        return 0
    return sum(path.stat().st_size for each in files if (path := Path(str(each.locate()))).is_file())


def test_a_second_train_on_the_same_base_moves_two_hundredths(tool: Tool) -> None:
    layers, sizes = {}, {}
    for name in ("cxr-classification", "cxr-evaluation"):
        tag = f"pht-test-moved-{name}:1"
        tool("build", TRAINS / name, "--tag", tag)
        found = docker("image", "inspect", '--format={{.Size}} {{join .RootFS.Layers " "}}', tag).split()
        sizes[name], layers[name] = int(found[0]), found[1:]
        docker("rmi", tag)
    below = inspect_image(TORCH_IMAGE)
    assert below is not None
    first, second = layers.values()
    common = sum(1 for one, other in zip(first, second, strict=False) if one == other)
    there = docker("image", "inspect", "--format={{len .RootFS.Layers}}", TORCH_IMAGE)
    assert int(there) <= common < len(second)
    assert 0 < sizes["cxr-evaluation"] - below.size_bytes < 0.02 * sizes["cxr-evaluation"]


def test_the_engine_builds_on_the_base_that_the_variant_names(tmp_path: Path) -> None:
    """As for CUDA, whose base weighs four gigabytes: here the small one stands in the torch image's place."""
    tag = "pht-test-variant:1"
    (tmp_path / "Dockerfile").write_text(f"ARG TORCH={TORCH_IMAGE}\nFROM ${{TORCH}}\nCOPY a /opt/pht/a\n")
    (tmp_path / "a").write_text("a")
    for arguments, base in (({}, TORCH_IMAGE), ({"TORCH": BASE_IMAGE}, BASE_IMAGE)):
        building._docker_build(tmp_path, tag, arguments, lambda _line: None)
        layers = [
            docker("image", "inspect", '--format={{join .RootFS.Layers " "}}', name).split()
            for name in (tag, base)
        ]
        assert layers[0][:-1] == layers[1]
    docker("rmi", tag)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """An image in a real registry: its name there, and the digest by which the registry has it."""
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        entry = tarfile.TarInfo("etc/version")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"one"))
    with plain_registry(tmp_path_factory.mktemp("registry")) as port:
        name = f"127.0.0.1:{port}/library/system"
        docker("import", "-", f"{name}:1", stdin=tree.getvalue())
        docker("push", "--quiet", f"{name}:1")
        (digest,) = docker("image", "inspect", '--format={{join .RepoDigests " "}}', f"{name}:1").split()
        docker("rmi", f"{name}:1", digest, check=False)
        yield name, digest
        docker("rmi", "-f", SYSTEM, digest, check=False)


def test_an_operating_system_pinned_by_its_digest_is_that_one(pushed: tuple[str, str]) -> None:
    _, digest = pushed
    lines: list[str] = []
    assert inspect_image(digest) is None
    assert make_base_image(SYSTEM, lines.append, pinned=digest) == "pinned"
    found = inspect_image(SYSTEM)
    assert found is not None
    assert found.digests == (digest,)
    assert lines == [f"{SYSTEM}: pulling {digest}"]
    # A second time nothing is pulled, and another image under the name gives way to the one that was asked for.
    docker("tag", BASE_IMAGE, SYSTEM)
    assert make_base_image(SYSTEM, lines.append, pinned=digest) == "pinned"
    assert inspect_image(SYSTEM) == found
    assert len(lines) == 1


def test_a_digest_that_the_registry_does_not_have_is_refused(pushed: tuple[str, str]) -> None:
    name, _ = pushed
    with pytest.raises(UnavailableError, match="cannot be pulled") as caught:
        make_base_image("pht-test-system:2", print, pinned=f"{name}@sha256:{'a' * 64}")
    assert "Check the digest" in caught.value.hint
    assert inspect_image("pht-test-system:2") is None


def test_two_that_ask_at_once_wait_for_each_other() -> None:
    done = threading.Event()

    def ask() -> None:
        build_base_images(lambda _line: None, torch=False)
        done.set()

    with exclusive_lock(LOCK):
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        assert not done.wait(0.5)
    assert done.wait(60)
    asking.join(60)
