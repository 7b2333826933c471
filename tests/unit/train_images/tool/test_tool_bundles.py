"""Bundles and manifests on disk: what an author wrote stays, and what does not hold together is said by name."""

import json
from pathlib import Path

import pytest
from layer_kit import extended, file, folder, header, record
from layer_kit import layer as layer_of_entries
from tool_kit import DESCRIPTION, MANIFEST, Tool, layer, make_bundle

from policies.blobs import BlobFolder
from policies.documents import load_yaml
from policies.errors import DocumentError, ExitCode, NotFoundError, RefusedError, TrustError, UsageError
from policies.manifest import ImageVariant, TrainManifest
from policies.refusals import RefusalCode
from train_images.tool.building import base_images, build_context
from train_images.tool.description import read_description, require_interface
from train_images.tool.folders import TrainFolder, read_bundle, read_folder
from train_images.tool.packing import pack, require_layer, with_image

IMAGE = ImageVariant(variant="cpu", config_digest="sha256:" + "a" * 64)
OTHER = ImageVariant(variant="cpu", config_digest="sha256:" + "b" * 64)


def images_of(text: bytes) -> tuple[ImageVariant, ...]:
    return load_yaml(TrainManifest, text, what="train.yaml").images


def test_the_image_is_filled_in_and_every_other_line_stays() -> None:
    text = with_image(MANIFEST.encode(), IMAGE)
    assert images_of(text) == (IMAGE,)
    assert text.decode().startswith(MANIFEST)


@pytest.mark.parametrize(
    "written",
    [
        "images: []\n",
        "images:\n  - {variant: cpu, config_digest: sha256:" + "c" * 64 + "}\n",
        "images:\n- variant: cpu\n  config_digest: sha256:" + "c" * 64 + "\n",
        "images: [\n  {variant: cpu, config_digest: sha256:" + "c" * 64 + "}]\n",
    ],
)
def test_an_image_that_stands_there_is_replaced_wherever_it_stands(written: str) -> None:
    for text in (
        MANIFEST + written,
        MANIFEST.replace("kind: training\n", written + "# why\nkind: training\n"),
    ):
        once = with_image(text.encode(), IMAGE)
        assert images_of(once) == (IMAGE,)
        assert images_of(with_image(once, OTHER)) == (OTHER,)
        assert text.count("#") <= once.decode().count("#")
    assert "# why" in once.decode()


def test_the_other_variant_of_an_image_stays() -> None:
    cuda = ImageVariant(variant="cuda", config_digest="sha256:" + "d" * 64)
    assert images_of(with_image(with_image(MANIFEST.encode(), cuda), IMAGE)) == (IMAGE, cuda)


def test_an_images_key_that_cannot_be_replaced_is_said() -> None:
    text = MANIFEST + '"images": []\n'
    with pytest.raises(DocumentError, match="images"):
        with_image(text.encode(), IMAGE)


def test_a_wrong_manifest_names_the_key_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(MANIFEST.replace("kind: training", "knid: training"))
    with pytest.raises(DocumentError, match=r"line 6: knid is not a known key"):
        read_folder(tmp_path)


def test_a_folder_that_is_no_train_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = Tool(capsys)
    assert "no such folder" in tool.error(ExitCode.NOT_FOUND, "build", tmp_path / "nowhere")
    assert "holds no train.yaml" in tool.error(ExitCode.NOT_FOUND, "build", tmp_path)
    (tmp_path / "train.yaml").write_text(MANIFEST)
    assert "holds no Dockerfile" in tool.error(ExitCode.NOT_FOUND, "build", tmp_path)
    assert "pht-train pack" in tool.error(ExitCode.NOT_FOUND, "check", tmp_path)


def test_a_bundle_reads_back(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    assert made.manifest.image_digest() == made.index.config.digest
    again = read_bundle(tmp_path / "bundle.json")
    assert (again.index, again.manifest) == (made.index, made.manifest)
    assert made.size == sum(path.stat().st_size for path in (tmp_path / "blobs" / "sha256").iterdir())


def test_a_manifest_that_was_changed_in_the_bundle_is_not_read(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    path = made.store.path(made.index.manifest.digest)
    path.write_bytes(path.read_bytes().replace(b"1.0.0", b"1.0.1"))
    with pytest.raises(TrustError):
        read_bundle(tmp_path)


def test_packing_does_not_write_into_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    folder = TrainFolder(tmp_path, MANIFEST.encode(), load_yaml(TrainManifest, MANIFEST.encode(), what=""))
    with pytest.raises(UsageError, match="something else than a bundle"):
        pack(folder, "pht-nothing:1", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


LONG = "opt/" + "folder/" * 30 + "name"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (file(b"etc/../../passwd"), "entry 3 of a layer: a path has a part '..': etc/../../passwd"),
        (header(b"dev/mem", b"3", device=(1, 1)), "entry 3 of a layer: it holds a device node: dev/mem"),
        (file(b"../a\n\x1b[31m\xe2\x80\xae\xff"), ": ../a??[31m??"),
        (extended(record(b"path", b"/" + b"x" * 900)) + file(b"f"), ": " + ("/" + "x" * 900)[:200]),
    ],
)
def test_a_refused_file_is_named_to_its_author(tmp_path: Path, entry: bytes, shown: str) -> None:
    before = extended(record(b"path", LONG.encode())) + file(b"cut", b"x" * 700)
    store = BlobFolder(tmp_path)
    blob = store.put_bytes(layer_of_entries(folder(b"opt/"), before, entry))
    with pytest.raises(RefusedError) as caught:
        require_layer(store, blob.digest)
    assert caught.value.code == RefusalCode.IMAGE_LAYER
    assert caught.value.message.endswith(shown)


@pytest.mark.parametrize(
    "data", [file(b"a", checksum=b"000000\0 "), b"x" * 1024, file(b"a", b"x" * 700)[:-512]]
)
def test_a_layer_that_no_path_can_be_named_of_is_refused_all_the_same(tmp_path: Path, data: bytes) -> None:
    store = BlobFolder(tmp_path)
    with pytest.raises(RefusedError) as caught:
        require_layer(store, store.put_bytes(data).digest)
    assert caught.value.code == RefusalCode.IMAGE_LAYER


# What the image says it is


def test_the_description_in_the_highest_layer_counts(tmp_path: Path) -> None:
    low = layer({"opt/pht/train.json": b'{"interface": "command", "argv": ["low"]}'})
    high = layer({"./opt/pht/train.json": json.dumps(DESCRIPTION).encode(), "etc/other": b""})
    made = make_bundle(tmp_path, layers=(low, high, layer({"etc/motd": b"hello"})))
    assert read_description(made) == DESCRIPTION


@pytest.mark.parametrize("content", [b"[]", b"not json", b"{" + b" " * 70_000 + b"}"])
def test_a_description_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    made = make_bundle(tmp_path, layers=(layer({"opt/pht/train.json": content}),))
    with pytest.raises(DocumentError, match=r"opt/pht/train\.json"):
        read_description(made)


def test_an_image_without_description_is_said(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, layers=(layer({"etc/motd": b"hello"}),))
    with pytest.raises(DocumentError, match=r"has no /opt/pht/train\.json"):
        read_description(made)


def test_an_image_of_another_interface_than_its_manifest_is_said(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, description={"interface": "command", "argv": ["/bin/true"]})
    with pytest.raises(DocumentError, match="interface flower"):
        require_interface(made)


# What the Dockerfile may copy


def test_the_context_is_the_folder_and_the_algorithms(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = 1")
    (tmp_path / "__pycache__").mkdir()
    with build_context(tmp_path) as context:
        assert (context / "code.py").read_text() == "x = 1"
        assert (context / "algorithms" / "__init__.py").is_file()
        assert not list(context.rglob("__pycache__"))


def test_a_folders_own_algorithms_come_first(tmp_path: Path) -> None:
    (tmp_path / "algorithms").mkdir()
    (tmp_path / "algorithms" / "mine.py").write_text("")
    with build_context(tmp_path) as context:
        assert [path.name for path in (context / "algorithms").iterdir()] == ["mine.py"]


def test_the_bases_of_a_dockerfile_are_found(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(MANIFEST)
    folder = read_folder(tmp_path)
    with pytest.raises(NotFoundError):
        base_images(folder)
    (tmp_path / "Dockerfile").write_text(
        "FROM --platform=linux/amd64 a:1 AS b\nRUN x\nfrom pht-train-base:0.2\n"
    )
    assert base_images(folder) == ("a:1", "pht-train-base:0.2")
