"""An existing Flower app as a train: in the real sandbox, through the real guard; and what its page says of it."""

import difflib
import re
from pathlib import Path

import pytest
from tool_kit import Tool
from trains_kit import TRAINS, Yard

FOLDER = TRAINS / "example-quickstart"


@pytest.mark.docker
def test_the_quickstart_trains_in_the_sandbox_and_only_what_it_declares_would_leave(
    yard: Yard, tool: Tool
) -> None:
    train = yard.packed(tool, "example-quickstart")
    report = tool.json("check", train.path, "--rounds", 2, "--set", "local_epochs=2", "--set", "lr=0.05")
    assert report["outcome"] == "released"
    told = [(each["round"], each["stage"], set(each["metrics"])) for each in report["messages"]]
    assert told == [
        (number, stage, names)
        for number in (1, 2)
        for stage, names in (("train", {"train_loss"}), ("evaluate", {"eval_loss", "eval_acc"}))
    ]
    # Ten tensors of float32 in each update: it trained, and on from what it had.
    numbers = 6 * 25 + 6 + 16 * 6 * 25 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 2 + 2
    updates = [each for each in report["messages"] if each["stage"] == "train"]
    assert all(4 * numbers < each["arrays_bytes"] < 4 * numbers + 4096 for each in updates)
    assert updates[0]["metrics"] != updates[1]["metrics"]
    measured = {each["what"]: each for each in report["measures"]}
    assert {"start", "message train", "message evaluate"} <= set(measured)
    assert measured["message train"]["asked"] == 600
    if "memory, at most" in measured:
        assert 50 < measured["memory, at most"]["measured"] < 1024
        assert measured["memory, at most"]["asked"] == 1024


def test_the_dockerfile_has_three_lines_and_the_page_shows_them() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "COPY", "COPY"]
    page = (FOLDER / "README.md").read_text()
    for line in lines:
        assert line in page


def test_every_line_that_the_page_adds_is_in_the_code() -> None:
    page = (FOLDER / "README.md").read_text()
    (diff,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    code = [
        line.strip()
        for name in ("task.py", "client_app.py")
        for line in (FOLDER / "pytorchexample" / name).read_text().splitlines()
    ]
    added = [line[1:].split("  #")[0].strip() for line in diff.splitlines() if line.startswith("+")]
    assert len(added) >= 6
    for line in added:
        near = difflib.get_close_matches(line, code, n=1, cutoff=0.5)
        assert any(found.startswith(line.rstrip(":")[:60]) for found in code), f"{line!r}, not {near}"
    gone = [line[1:].split("  #")[0].strip() for line in diff.splitlines() if line.startswith("-")]
    assert gone
    assert not set(gone) & set(code)
    assert "partition" not in "\n".join(code)


def test_it_is_an_app_of_flower_and_torch_and_of_nothing_of_ours() -> None:
    imported: set[str] = set()
    for path in Path(FOLDER / "pytorchexample").glob("*.py"):
        imported |= set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    assert imported == {"flwr", "json", "numpy", "os", "pathlib", "pytorchexample", "struct", "torch"}
