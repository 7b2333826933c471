"""The history of a run: each change of state once, whatever a crash left of its file."""

from pathlib import Path

from orchestrator.federation.history import HISTORY, note_wish, read_history
from orchestrator.federation.orders import RunFolder, RunProgress, RunState


def test_each_change_of_state_is_in_the_history_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number, state in enumerate(
        (RunState.QUEUED, RunState.RUNNING, RunState.RUNNING, RunState.FAILED, RunState.QUEUED)
    ):
        folder.write_progress(
            RunProgress(state=state, round=number, code="X" if state is RunState.FAILED else "")
        )
    found = read_history(tmp_path)
    assert [(line["state"], line["round"], line["code"]) for line in found] == [
        ("queued", 0, ""), ("running", 1, ""), ("failed", 3, "X"), ("queued", 4, ""),
    ]  # fmt: skip
    assert all(line["at"].endswith("Z") for line in found)


def test_a_line_that_a_crash_repeated_or_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_progress(RunProgress())
    (tmp_path / "state.json").unlink()
    folder.write_progress(RunProgress())
    with (tmp_path / HISTORY).open("ab") as file:
        file.write(b'{"at": "2026-11-22T10:0')
    note_wish(tmp_path, "stop", "researcher:alice")
    assert [line.get("state") or line["asked"] for line in read_history(tmp_path)] == ["queued", "stop"]
