"""Desks for the tests of `pht-board`: keys made, a root in force, a policy drafted."""

from pathlib import Path

import pytest
import yaml
from board_answers import write_answers
from board_desk import PEOPLE, TRAIN, Desk


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv("PHT_PASSPHRASE", raising=False)
    desk = Desk(tmp_path, capsys)
    for name in (*PEOPLE, "secretary", "witness", "requester"):
        desk("member", "new", desk / f"{name}.pem", "--no-passphrase")
    members = [
        {
            "name": name.title(),
            "organisation": "UMC",
            "role": role,
            "key": (desk / f"{name}.pub").read_text().strip(),
        }
        for name, role in PEOPLE.items()
    ]
    charter = {
        "schema_version": 1,
        "board": "thorax-board",
        "title": "Thorax board",
        "members": members,
        "threshold": 2,
        "required_roles": ["clinician", "patient-representative"],
    }
    (desk / "charter.yaml").write_text(yaml.safe_dump(charter))
    (desk / "train.yaml").write_text(TRAIN)
    return desk


@pytest.fixture
def board(desk: Desk) -> Desk:
    keys = ("--secretary-key", desk / "secretary.pub", "--witness-key", desk / "witness.pub")
    desk("init", desk / "repo", "--charter", desk / "charter.yaml", *keys)
    for name in ("alice", "carol"):
        desk("sign", "--root", desk / "repo", "--key", desk / f"{name}.pem", "--yes")
    return desk


@pytest.fixture
def drafted(board: Desk) -> Desk:
    board(
        "draft",
        "--from",
        board / "train.yaml",
        "-o",
        board / "policy.yaml",
        "--requester-key",
        board / "requester.pub",
        "--answers",
        write_answers(board.folder),
    )
    return board
