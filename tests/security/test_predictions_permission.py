"""Attack: have a train asked for predictions where board, researcher or hospital did not all say so."""

import ast
from pathlib import Path
from typing import Any

import pytest
from prediction_kit import kept, one_round, predicting_station
from station_kit import StationKit

from policies.errors import SettingsError
from station.predictions.folder import require_apart


def asked(kit: StationKit) -> list[Any]:
    return [request for request in kit.sandbox.asked if request.kind == "predict"]


@pytest.mark.parametrize(
    ("policy", "declared", "keep"),
    [
        ({"release.local_predictions": False}, None, True),
        ({}, [], True),
        ({}, None, False),
    ],
    ids=["no-policy", "not-declared", "no-folder"],
)
def test_without_one_of_the_three_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: dict[str, Any], declared: Any, keep: bool
) -> None:
    kit = predicting_station(tmp_path, monkeypatch, policy, declared=declared, keep=keep)
    one_round(kit)
    assert asked(kit) == []
    assert kept(kit) == []
    assert "predictions-kept" not in kit.events()
    kit.close()


@pytest.mark.parametrize("inside", ["", "intake/spool", "handover", "compute/work", ".."])
def test_a_folder_that_a_station_reads_from_is_refused(tmp_path: Path, inside: str) -> None:
    home = tmp_path / "home"
    (home / inside).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SettingsError, match=r"predictions\.folder: lies in the station's home"):
        require_apart(home / inside, home)
    (tmp_path / "elsewhere").symlink_to(home / inside)
    with pytest.raises(SettingsError, match="lies in the station's home"):
        require_apart(tmp_path / "elsewhere", home)


def test_a_folder_is_named_from_the_root_and_lies_beside(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no absolute path"):
        require_apart(Path("predictions"), tmp_path / "home")
    require_apart(tmp_path / "predictions", tmp_path / "home")


def test_nothing_of_ours_sends_what_is_kept() -> None:
    """Neither the code that makes predictions nor the code that keeps them can speak DICOM's network, or any."""
    root = Path(__file__).parents[2]
    files = [
        *(root / "station" / "predictions").rglob("*.py"),
        *(root / "station" / "runs").rglob("*predict*.py"),
    ]
    assert {"folder.py", "predicting.py", "asking_predictions.py", "keeping_predictions.py", "making_predictions.py"} <= {
        path.name for path in files
    }  # fmt: skip
    networks = {
        "socket",
        "ssl",
        "http",
        "urllib",
        "httpx",
        "requests",
        "pynetdicom",
        "dicomweb_client",
        "flwr",
    }
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in networks, f"{path.name} imports {name}"
                assert not name.startswith(("station.intake", "station.agent")), f"{path.name} imports {name}"
