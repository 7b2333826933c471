"""A strategy in the rounds of an order: what the record says of it, and what ends a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import rounds_to_kill
from rounds_to_kill import NAMES

from orchestrator.federation.combining import Combining
from orchestrator.federation.orders import RunFolder
from orchestrator.federation.rounds import RunFailedError


def _folder(place: Path) -> RunFolder:
    return RunFolder(place / "runs" / rounds_to_kill.ORDER[7:])


def test_whom_krum_leaves_out_is_in_the_rounds_record(tmp_path: Path) -> None:
    rounds_to_kill.order_at(tmp_path, {"name": "Krum"}, far={"berkel"}).run()
    rounds = _folder(tmp_path).read_rounds()
    assert len(rounds) == rounds_to_kill.ROUNDS
    for entry in rounds:
        assert entry["took_part"] == list(NAMES)
        assert "berkel" in entry["left_out"]
        assert len(entry["left_out"]) == len(NAMES) - 1


def test_a_mean_leaves_nobody_out_and_keeps_nothing(tmp_path: Path) -> None:
    rounds_to_kill.order_at(tmp_path, {"name": "FedAvg"}, far={"berkel"}).run()
    assert [entry["left_out"] for entry in _folder(tmp_path).read_rounds()] == [[]] * rounds_to_kill.ROUNDS
    assert not (_folder(tmp_path).path / "strategy").exists()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_run_does_not_begin_again_with_no_moments(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Combining.settle

    def crash(self: Combining, checkpoint: Any) -> None:
        settle(self, checkpoint)
        if checkpoint.round == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Combining, "settle", crash)
        with pytest.raises(KeyboardInterrupt):
            rounds_to_kill.order_at(tmp_path, {"name": "FedYogi"}).run()
    folder = _folder(tmp_path)
    named = json.loads((folder.path / "checkpoint.json").read_text())["strategy"]
    path = folder.path / "strategy" / named["v_t"]["digest"][7:]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunFailedError, match="STRATEGY_STATE_ABSENT"):
        rounds_to_kill.order_at(tmp_path, {"name": "FedYogi"}).run()
    # The second round's average stands, and its record.
    assert len(folder.read_rounds()) == 2
