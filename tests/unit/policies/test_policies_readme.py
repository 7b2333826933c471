"""The package's README against the code: the table of policy fields, and the walk-through, typed as it stands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_desk import TRAIN
from pydantic import BaseModel

from policies.cli import app
from policies.console import run
from policies.policy import Policy
from policies.refusals import RefusalCode

ROOT = Path(__file__).parents[3]
README = (ROOT / "policies" / "README.md").read_text("utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in README.split("## Every field of a policy")[1].split("\n## ")[0].splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        options = getattr(field.annotation, "__args__", ()) or (field.annotation,)
        inner = [item for item in options if isinstance(item, type) and issubclass(item, BaseModel)]
        repeated = getattr(field.annotation, "__origin__", None) in {tuple, dict}
        if inner and not repeated:
            yield from leaves(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_table_has_every_field_and_no_other() -> None:
    assert set(ROWS) == set(leaves(Policy))


@pytest.mark.parametrize("field", ROWS)
def test_a_row_names_a_real_code_and_a_real_test(field: str) -> None:
    where, code, test = ROWS[field]
    assert where
    assert code == "-" or code.strip("`") in set(RefusalCode)
    assert (ROOT / test.strip("`").replace("U/", "tests/unit/")).is_file()


def test_the_walk_through_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # A person would be asked for these two.
    monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
    (tmp_path / "train.yaml").write_text(TRAIN)
    for language, block in re.findall(r"```(console|yaml)\n(.*?)```", README, re.DOTALL):
        if language == "yaml":
            charter = re.sub(r"<(\w+\.pub)>", lambda match: Path(match[1]).read_text("utf-8").strip(), block)
            (tmp_path / "charter.yaml").write_text(charter)
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "pht-board"
            if arguments[0] == "sign":
                arguments.append("--yes")
            if "witness.pem" in arguments:
                monkeypatch.delenv("PHT_PASSPHRASE")
            assert run(app, arguments) == 0, (line, capsys.readouterr().err)
            monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
    assert "Withdrew cxr-classification version 1" in capsys.readouterr().out
