"""`pht-board` as people type it, in a folder with everyone's keys."""

import json
from pathlib import Path

import pytest

from policies.cli import app
from policies.console import run
from policies.errors import ExitCode

PEOPLE = {"alice": "clinician", "bob": "lawyer", "carol": "patient-representative"}
TRAIN = """
schema_version: 1
name: cxr-classification
version: 1.0.0
title: Pneumonia on chest radiographs
kind: training
interface: flower
data: {modalities: [DX], profile: thorax-1@1, label: pneumonia}
hyperparameters:
  learning_rate: {type: float, minimum: 0.0001, maximum: 0.1, default: 0.001}
outputs:
  tensors: {layout: same-as-input}
  metrics:
    - {key: loss, stage: train, minimum: 0.0, maximum: 100.0, split: training}
    - {key: auc, stage: evaluate, minimum: 0.0, maximum: 1.0, split: validation}
resources: {memory_mib: 6000, cpus: 1.0}
contact: {name: R. de Vries, organisation: UMC A, email: r@example.org}
licence: Apache-2.0
source_commit: 0123456789abcdef
images:
  - {variant: cpu, config_digest: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}
"""


class Desk:
    """A folder, and `pht-board` run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object, code: ExitCode = ExitCode.OK) -> str:
        found = run(app, [str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        assert found == code, self.err + self.out
        return self.out

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def json(self, *arguments: object) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*arguments, "--json"))
        return found


def publish(board: Desk, *documents: Path) -> None:
    board(
        "publish", *documents, "-r", board / "repo", "-k", board / "secretary.pem", "--to", board / "mirror"
    )
    vouch(board)


def vouch(board: Desk) -> None:
    board(
        "witness",
        "-r",
        board / "repo",
        "-k",
        board / "witness.pem",
        "--once",
        "--publish-to",
        board / "mirror",
    )


def verified(board: Desk) -> dict[str, object]:
    return board.json("verify", board / "mirror", "--root", board / "repo" / "metadata" / "1.root.json")
