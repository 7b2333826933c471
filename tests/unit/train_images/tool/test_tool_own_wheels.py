"""A train's own packages: a closed list, real wheels from a folder, and a byte that changed."""

import hashlib
from pathlib import Path

import pytest
from wheel_kit import wheel

from policies.errors import DocumentError, TrustError, UnavailableError
from train_images.base.wheels import closed_list
from train_images.tool.own_wheels import REQUIREMENTS, WHEELS, fetch_own_wheels

HASH = "--hash=sha256:" + "a" * 64


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A train's folder; the only index is a folder of files."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    folder = tmp_path / "my-train"
    folder.mkdir()
    return folder


def test_what_is_listed_is_fetched_for_the_image_and_not_for_this_machine(
    train: Path, tmp_path: Path
) -> None:
    digest = wheel(tmp_path / "index", "cp311-cp311-manylinux_2_28_x86_64")
    (train / REQUIREMENTS).write_text(f"# ours\npht-tiny==1.0 \\\n    --hash=sha256:{digest}  # tiny\n")
    assert fetch_own_wheels(train, tmp_path) == ("pht_tiny-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",)
    fetched = (tmp_path / WHEELS / "pht_tiny-1.0-cp311-cp311-manylinux_2_28_x86_64.whl").read_bytes()
    assert hashlib.sha256(fetched).hexdigest() == digest


def test_a_wheel_that_changed_since_it_was_written_down_is_refused(train: Path, tmp_path: Path) -> None:
    digest = wheel(tmp_path / "index")
    (train / REQUIREMENTS).write_text(f"pht-tiny==1.0 --hash=sha256:{digest}\n")
    wheel(tmp_path / "index", text="answer = 43\n")
    with pytest.raises(TrustError, match=r"my-train/requirements\.txt") as caught:
        fetch_own_wheels(train, tmp_path)
    assert "why the file changed" in caught.value.hint
    assert list((tmp_path / WHEELS).glob("*.whl")) == []


@pytest.mark.parametrize("tag", ["cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_28_aarch64"])
def test_a_wheel_of_another_python_or_machine_is_not_taken(train: Path, tmp_path: Path, tag: str) -> None:
    digest = wheel(tmp_path / "index", tag)
    (train / REQUIREMENTS).write_text(f"pht-tiny==1.0 --hash=sha256:{digest}\n")
    with pytest.raises(UnavailableError):
        fetch_own_wheels(train, tmp_path)


@pytest.mark.parametrize("text", [None, "", "# nothing\n\n"])
def test_a_train_that_brings_no_packages_has_no_wheels(train: Path, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (train / REQUIREMENTS).write_text(text)
    assert fetch_own_wheels(train, tmp_path) == ()
    assert not (tmp_path / WHEELS).exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scipy==1.17.1\n", 1),
        (f"scipy>=1.17.1 {HASH}\n", 1),
        (f"scipy==1.* {HASH}\n", 1),
        (f"# fine\nscipy==1.17.1 {HASH}\n--index-url https://elsewhere.example\n", 3),
        ("# a remark \\\n--extra-index-url https://elsewhere.example\n", 2),
        (f"scipy @ https://elsewhere.example/scipy.whl {HASH}\n", 1),
        ("-r other.txt\n", 1),
        (f"./scipy.whl {HASH}\n", 1),
        (f"scipy==1.17.1 {HASH[:-1]}\n", 1),
        ("scipy==1.17.1 --hash=md5:" + "a" * 32 + "\n", 1),
        (f"scipy==${{VERSION}} {HASH}\n", 1),
        (f"scipy==1.17.1 \\\n {HASH} \\\n --index-url https://elsewhere.example\n", 3),
    ],
)
def test_a_list_that_leaves_anything_open_is_refused_with_its_line(train: Path, text: str, line: int) -> None:
    (train / REQUIREMENTS).write_text(text)
    with pytest.raises(DocumentError, match=f"line {line} ") as caught:
        closed_list(train / REQUIREMENTS)
    assert "--hash=sha256" in caught.value.hint
