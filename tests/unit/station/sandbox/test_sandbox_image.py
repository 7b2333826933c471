"""What of an image's config is taken over, and the archive that the engine is given."""

import io
import json
import tarfile
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_kit import file, header, layer, ordinary

from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.image import archive as packed
from station.sandbox.image import rewriting as image
from station.sandbox.image.verified import LayerVerifier

LAYERS = (ordinary({"lower": b"lower" * 300}), ordinary({"upper": b""}))
DIFF_IDS = tuple(digest_of(each) for each in LAYERS)

SIZES = tuple(len(layer) for layer in LAYERS)


def config(**inner: Any) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": list(DIFF_IDS)},
        "history": [{"created_by": "something"}],
        "created": "2026-01-01T00:00:00Z",
    }


@pytest.fixture
def store(tmp_path: Path) -> BlobFolder:
    made = BlobFolder(tmp_path / "layers")
    for each in LAYERS:
        made.put_bytes(each)
    return made


def test_only_layers_platform_and_allowed_variables_remain() -> None:
    greedy = config(
        Env=["PATH=/bin", "SECRET=x", "LC_ALL=C.UTF-8", "PYTHONPATH=/opt/app"],
        Entrypoint=["/evil"], Cmd=["x"], User="0", Volumes={"/v": {}}, Labels={"a": "b"}, ExposedPorts={"80/tcp": {}},
        OnBuild=["RUN x"], Healthcheck={"Test": ["CMD", "x"]}, StopSignal="SIGTERM", WorkingDir="/root", Shell=["/evil"],
    )  # fmt: skip
    made = image.rewrite(greedy, DIFF_IDS, SIZES)
    assert json.loads(made.config) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin", "LC_ALL=C.UTF-8", "PYTHONPATH=/opt/app"]},
        "rootfs": {"type": "layers", "diff_ids": list(DIFF_IDS)},
    }
    assert made.config_digest == digest_of(made.config)


def test_images_that_differ_in_what_is_dropped_load_as_one() -> None:
    assert image.rewrite(config(User="0"), DIFF_IDS, SIZES) == image.rewrite(
        config(Labels={"x": "y"}), DIFF_IDS, SIZES
    )


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_HOME",
     "CUDA_VISIBLE_DEVICES", "PYTHONSTARTUP", "PYTHONHOME", "GLIBC_TUNABLES", "BASH_ENV", "http_proxy", "HTTPS_PROXY",
     "DOCKER_HOST"],
)  # fmt: skip
def test_variables_that_change_what_is_loaded_refuse_the_image(name: str) -> None:
    with pytest.raises(RefusedError, match=name) as caught:
        image.allowed_variables(["PATH=/bin", f"{name}=x"])
    assert caught.value.code == RefusalCode.IMAGE_CONFIG


@pytest.mark.parametrize(
    "variables", ["PATH=/bin", [1], ["NOVALUE"], ["PATH=" + "x" * 5000], ["PATH=a\0b"], {"PATH": "x"}]
)
def test_malformed_variables_refuse_the_image(variables: Any) -> None:
    with pytest.raises(RefusedError):
        image.allowed_variables(variables)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=12), st.text(max_size=12)), max_size=6))
def test_no_variable_passes_that_is_not_on_the_list(pairs: list[tuple[str, str]]) -> None:
    try:
        kept = image.allowed_variables([f"{name}={value}" for name, value in pairs])
    except RefusedError:
        return
    assert all(image.ALLOWED_VARIABLES.fullmatch(pair.partition("=")[0]) for pair in kept)
    assert not any(image.REFUSED_VARIABLES.fullmatch(pair.partition("=")[0]) for pair in kept)


@pytest.mark.parametrize("change", [{"os": "windows"}, {"os": None}, {"architecture": 7}])
def test_an_image_for_another_system_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        image.rewrite(config() | change, DIFF_IDS, SIZES)


def test_the_archive_has_no_names_and_the_layers_that_the_engine_lacks(store: BlobFolder) -> None:
    made = image.rewrite(config(), DIFF_IDS, SIZES)
    for skip, expected in ((0, list(LAYERS)), (1, [LAYERS[1]]), (2, [])):
        data = b"".join(packed.archive(made, store, skip=skip))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        (listing,) = json.loads(contents.pop("manifest.json"))
        assert listing["RepoTags"] is None
        assert contents.pop(listing["Config"]) == made.config
        assert listing["Layers"] == [f"blobs/sha256/{each.removeprefix('sha256:')}" for each in DIFF_IDS]
        assert json.loads(contents.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        (found,) = json.loads(contents.pop("index.json"))["manifests"]
        assert found["digest"] == made.manifest_digest
        assert "annotations" not in found
        manifest = contents.pop(f"blobs/sha256/{found['digest'].removeprefix('sha256:')}")
        assert digest_of(manifest) == made.manifest_digest
        assert json.loads(manifest)["config"]["digest"] == made.config_digest
        assert [each["digest"] for each in json.loads(manifest)["layers"]] == list(DIFF_IDS)
        assert list(contents.values()) == expected


@pytest.mark.parametrize(
    "damage", [LAYERS[0].replace(b"lower", b"lowEr"), b"short", LAYERS[0] + b"more", LAYERS[0][:2000]]
)
def test_a_changed_layer_ends_the_archive_before_its_manifest(store: BlobFolder, damage: bytes) -> None:
    store.path(DIFF_IDS[0]).write_bytes(damage)
    made = image.rewrite(config(), DIFF_IDS, SIZES)
    sent: list[bytes] = []
    with pytest.raises(RefusedError) as caught:
        deque(map(sent.append, packed.archive(made, store, skip=0)), maxlen=0)
    assert caught.value.code == RefusalCode.IMAGE_DIGEST
    assert sent
    assert b"manifest.json" not in b"".join(sent)
    with pytest.raises(RefusedError):
        LayerVerifier(store).verify(DIFF_IDS)


@pytest.mark.parametrize(
    "hostile", [layer(header(b"dev/mem", b"3")), layer(file(b"x/../../etc")), file(b"x", b"y")[:-1]]
)
def test_a_layer_that_no_engine_should_unpack_ends_the_archive_before_its_manifest(
    store: BlobFolder, hostile: bytes
) -> None:
    digest = store.put_bytes(hostile).digest
    diff_ids = (DIFF_IDS[0], digest)
    made = image.rewrite(
        {**config(), "rootfs": {"diff_ids": list(diff_ids)}}, diff_ids, (SIZES[0], len(hostile))
    )
    sent: list[bytes] = []
    with pytest.raises(RefusedError) as caught:
        deque(map(sent.append, packed.archive(made, store, skip=0)), maxlen=0)
    assert caught.value.code == RefusalCode.IMAGE_LAYER
    assert LAYERS[0] in b"".join(sent)
    assert hostile not in b"".join(sent)
    assert b"manifest.json" not in b"".join(sent)


def test_a_missing_layer_is_named_otherwise(store: BlobFolder) -> None:
    store.remove(DIFF_IDS[1])
    made = image.rewrite(config(), DIFF_IDS, SIZES)
    for attempt in (
        lambda: LayerVerifier(store).verify(DIFF_IDS),
        lambda: list(packed.archive(made, store, skip=0)),
    ):
        with pytest.raises(RefusedError) as caught:
            attempt()
        assert caught.value.code == RefusalCode.IMAGE_UNAVAILABLE


def test_a_config_is_read_by_its_digest(store: BlobFolder) -> None:
    raw = json.dumps(config(Env=["PATH=/bin"])).encode()
    digest = store.put_bytes(raw).digest
    assert image.read_image(store, digest).diff_ids == DIFF_IDS
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(raw + b" ")
    with pytest.raises(RefusedError) as caught:
        image.read_image(store, digest)
    assert caught.value.code == RefusalCode.IMAGE_DIGEST


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"rootfs":{"diff_ids":["x"]}}', b'{"a":1,"a":1}'])
def test_a_config_that_is_none_is_refused(store: BlobFolder, raw: bytes) -> None:
    digest = store.put_bytes(raw).digest
    with pytest.raises(RefusedError) as caught:
        image.read_image(store, digest)
    assert caught.value.code == RefusalCode.IMAGE_CONFIG
