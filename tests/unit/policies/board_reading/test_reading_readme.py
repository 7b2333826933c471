"""The commands in the page of `policies/board`, typed as they stand in a folder that holds what they name."""

import re
import shlex
from pathlib import Path

import pytest
from board_kit import BoardKit
from reading_kit import SITE, Entry, debian_layer, distribution, manifest_digest, pack, tar
from test_reading_simulate import Site

from policies.bundle import BundleIndex
from policies.cli import app
from policies.console import run

README = (Path(__file__).parents[4] / "policies" / "board" / "README.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.strip().splitlines()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = Site(tmp_path)
    source = [Entry(f"{SITE}/train.py", b"print('one')\n"), *distribution("thing", "1", "License: MIT")]
    pack(tmp_path / "approved", [debian_layer(), tar(*source)])
    source[0] = Entry(f"{SITE}/train.py", b"print('two')\n")
    bundle = pack(tmp_path / "bundle", [debian_layer(), tar(*source)])
    index = BundleIndex.decode((bundle / "bundle.json").read_bytes())
    board: BoardKit = site.board
    policy = {"manifest_digest": manifest_digest(bundle), "image_config_digests": [index.config.digest]}
    board.publish(board.signed(board.policy()))
    (tmp_path / "policy.yaml").write_bytes(board.policy(2, {**policy, "data.clinical_fields": ["pneumonia"]}))
    for name in ("amstel", "berkel"):
        site.profile(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_work_as_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "pht-board"
        assert run(app, arguments) == 0, (line, capsys.readouterr().err)
        said[arguments[0]] = capsys.readouterr().out
    assert set(said) == {"review", "diff", "similar", "simulate"}
    assert "Packages that changed" in said["review"]
    assert "Would it run there?" in said["simulate"]


def test_every_module_has_its_row() -> None:
    package = Path(__file__).parents[4] / "policies" / "board"
    named = set(re.findall(r"`([a-z_]+(?:\.py|/))`", README.split("## Reading")[0]))
    there = {path.name for path in package.rglob("*.py")} | {
        f"{path.parent.name}/" for path in package.glob("*/__init__.py")
    }
    assert named <= there
    assert {"contents/", "comparing/", "similarity/", "simulation/", "commands/", "reviewing/"} <= named


def test_the_threshold_that_the_page_names_is_the_programs() -> None:
    from policies.board.similarity.questions import THRESHOLD

    assert f"The threshold of {THRESHOLD:g}" in README
