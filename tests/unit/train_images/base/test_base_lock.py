"""Writing closed lists of wheels: real resolving over a folder of tiny wheels."""

import re
import sys
from pathlib import Path

import pytest
from wheel_kit import wheel

from policies.errors import DocumentError, UnavailableError
from train_images.base import lock as locking
from train_images.base.lock import (
    BASE_LIST,
    Inputs,
    choose,
    is_current,
    lists_below,
    lock,
    main,
    read_inputs,
    read_report,
    versions,
)
from train_images.base.wheels import closed_list

TORCH_LIST = "requirements-torch-cpu.txt"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs, and an index: a train's tool that needs a server, which needs an installer."""
    index, made = tmp_path / "index", tmp_path / "lists"
    # Nothing in these wheels depends on the Python that runs pip.
    monkeypatch.setattr(locking, "PYTHON", f"{sys.version_info.major}.{sys.version_info.minor}")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    wheel(index, name="app", requires=[
        "Requires-Dist: codec>=1", "Requires-Dist: server", "Requires-Dist: parts[fast]",
        'Requires-Dist: backport; python_version < "3.8"'])  # fmt: skip
    wheel(index, name="server", requires=["Requires-Dist: installer", "Requires-Dist: codec"])
    wheel(index, name="installer")
    wheel(index, name="parts", requires=[
        "Provides-Extra: fast", "Provides-Extra: slow", 'Requires-Dist: speed; extra == "fast"',
        'Requires-Dist: snail; extra == "slow"'])  # fmt: skip
    wheel(index, name="speed")
    wheel(index, "cp311-cp311-manylinux_2_28_x86_64", name="codec")
    wheel(index, "cp311-cp311-manylinux_2_28_aarch64", "other = 1\n", name="codec")
    made.mkdir()
    (made / "requirements.in").write_text("# what it is for\napp==1.0  # exactly\nwithout server\n")
    return made


def test_what_is_wanted_reaches_what_it_needs_and_not_what_is_left_out(folder: Path, tmp_path: Path) -> None:
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    assert versions(folder / BASE_LIST) == dict.fromkeys(("app", "codec", "parts", "speed"), "1.0")
    (codec,) = (line for line in (folder / BASE_LIST).read_text().splitlines() if line.startswith("codec"))
    here = wheel(tmp_path / "index", "cp311-cp311-manylinux_2_28_x86_64", name="codec")
    assert codec == f"codec==1.0 --hash=sha256:{here}  # codec-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert len(closed_list(folder / BASE_LIST)) == 4


def test_versions_are_kept_until_an_upgrade_is_asked_for(folder: Path, tmp_path: Path) -> None:
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    before = (folder / BASE_LIST).read_text()
    wheel(tmp_path / "index", "cp311-cp311-manylinux_2_28_x86_64", name="codec", version="1.1")
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    assert (folder / BASE_LIST).read_text() == before
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=True)
    assert versions(folder / BASE_LIST)["codec"] == "1.1"


def test_a_list_on_torch_keeps_the_bases_versions_and_names_none_of_them(
    folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    wheel(index, name="torch", version="2.0+cpu", requires=["Requires-Dist: codec", "Requires-Dist: graphs"])
    wheel(index, name="graphs")
    # The newest does not go with what the base has.
    wheel(index, name="graphs", version="2.0", requires=["Requires-Dist: codec>=1.1"])
    wheel(index, "cp311-cp311-manylinux_2_28_x86_64", name="codec", version="1.1")
    (folder / "requirements-torch-cpu.in").write_text("torch==2.0+cpu\n")
    lock(folder / TORCH_LIST, lists_below(TORCH_LIST, folder), upgrade=True)
    assert versions(folder / TORCH_LIST) == {"torch": "2.0+cpu", "graphs": "1.0"}


def test_a_list_is_current_until_what_it_follows_from_changes(folder: Path, tmp_path: Path) -> None:
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    wheel(tmp_path / "index", name="torch", version="2.0+cpu")
    (folder / "requirements-torch-cpu.in").write_text("torch==2.0+cpu\n")
    lock(folder / TORCH_LIST, lists_below(TORCH_LIST, folder), upgrade=False)
    assert is_current(folder / BASE_LIST, lists_below(BASE_LIST, folder))
    assert is_current(folder / TORCH_LIST, lists_below(TORCH_LIST, folder))
    with (folder / "requirements.in").open("a") as file:
        file.write("without parts\n")
    assert not is_current(folder / BASE_LIST, lists_below(BASE_LIST, folder))
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    assert versions(folder / BASE_LIST).keys() == {"app", "codec"}
    assert is_current(folder / BASE_LIST, lists_below(BASE_LIST, folder))
    assert not is_current(folder / TORCH_LIST, lists_below(TORCH_LIST, folder))


def test_what_cannot_be_had_is_said_and_the_list_stays(folder: Path) -> None:
    lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    before = (folder / BASE_LIST).read_text()
    (folder / "requirements.in").write_text("app==2.0\nwithout server\n")
    with pytest.raises(UnavailableError, match=r"app==2\.0") as caught:
        lock(folder / BASE_LIST, lists_below(BASE_LIST, folder), upgrade=False)
    assert "--upgrade" in caught.value.hint
    assert (folder / BASE_LIST).read_text() == before


@pytest.mark.parametrize(
    ("text", "line"),
    [("app>=1.0\n", 1), ("# fine\napp\n", 2), ("app==1.0\n--index-url https://elsewhere.example\n", 2),
     ("app==1.*\n", 1), ("without\n", 1), ("without a b\n", 1), ("app @ https://elsewhere.example/app.whl\n", 1),
     # These pip would take for options of its own.
     ("--editable==app\n", 1), ("app==1.0\n--index-url==elsewhere\n", 2), ("-rothers==1\n", 1), ("app-==1.0\n", 1)],
)  # fmt: skip
def test_an_input_that_is_not_exact_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "x.in").write_text(text)
    with pytest.raises(DocumentError, match=f"line {line} "):
        read_inputs(tmp_path / "x.in")


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe==1\n", "as text"), (b"# nothing\nwithout app\n", "no package")]
)
def test_inputs_without_a_package_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.in").write_bytes(data)
    with pytest.raises(DocumentError, match=words):
        read_inputs(tmp_path / "x.in")


def test_leaving_out_what_nothing_needs_or_what_is_wanted_is_a_mistake(folder: Path) -> None:
    wheels = read_report(locking.resolve(["app==1.0"], {}))
    with pytest.raises(DocumentError, match="nothing needs it: fastapi"):
        choose(Inputs(("app==1.0",), frozenset({"fastapi"})), wheels, ())
    with pytest.raises(DocumentError, match="left out or there already: app"):
        choose(Inputs(("app==1.0",), frozenset()), wheels, ["app"])


def test_another_python_may_not_write_the_lists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locking, "PYTHON", "3.10")
    assert main([]) == 2
    assert re.search(r"Python 3\.10 on x86_64", capsys.readouterr().err)
