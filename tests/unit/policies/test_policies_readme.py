"""The package's README against the code: the table of policy fields, and the walk-through, typed as it stands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_desk import TRAIN
from pydantic import BaseModel

from policies.charter import Charter, StationRegister
from policies.cli import app
from policies.console import run
from policies.decisions import Decisions
from policies.opinions import Opinion
from policies.order import RunOrder
from policies.policy import Policy
from policies.purposes import PurposeTable
from policies.refusals import RefusalCode
from policies.trust.revocations import RevocationList

ROOT = Path(__file__).parents[3]
README = (ROOT / "policies" / "README.md").read_text("utf-8")
OTHERS: dict[str, type[BaseModel]] = {
    "charter": Charter,
    "register": StationRegister,
    "purposes": PurposeTable,
    "revocations": RevocationList,
    "opinion": Opinion,
    "decisions": Decisions,
    "order": RunOrder,
}


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: per field its cells."""
    return {
        cells[0].strip("`"): cells[1:]
        for line in README.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
        if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }


ROWS = rows("Every field of a policy")
OTHER_ROWS = rows("Every field of the other documents")


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        options = getattr(field.annotation, "__args__", ()) or (field.annotation,)
        inner = [item for item in options if isinstance(item, type) and issubclass(item, BaseModel)]
        repeated = getattr(field.annotation, "__origin__", None) in {tuple, dict}
        if inner and not repeated:
            yield from leaves(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def every_leaf(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Like `leaves`, into lists of documents too."""
    for name, field in model.model_fields.items():
        inner = [
            item
            for item in nested(field.annotation)
            if isinstance(item, type) and issubclass(item, BaseModel)
        ]
        listed = "[]" if getattr(field.annotation, "__origin__", None) is tuple else ""
        if inner:
            yield from every_leaf(inner[0], f"{prefix}{name}{listed}.")
        else:
            yield f"{prefix}{name}"


def nested(annotation: object) -> Iterator[object]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from nested(inner)


def test_the_table_has_every_field_and_no_other() -> None:
    assert set(ROWS) == set(leaves(Policy))


def test_the_other_table_has_every_field_and_no_other() -> None:
    found = {f"{name}: {leaf}" for name, model in OTHERS.items() for leaf in every_leaf(model)}
    assert set(OTHER_ROWS) == found


@pytest.mark.parametrize("field", [*ROWS, *OTHER_ROWS])
def test_a_row_names_a_real_code_and_a_real_test(field: str) -> None:
    where, code, test = (ROWS | OTHER_ROWS)[field]
    assert where
    assert code == "-" or code.strip("`") in set(RefusalCode)
    path = test.strip("`").replace("U/", "tests/unit/").replace("S/", "tests/security/")
    assert (ROOT / path).is_file()


def test_the_walk_through_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # A person would be asked for these two.
    monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
    (tmp_path / "train.yaml").write_text(TRAIN)
    # What the station and the researcher type is tried in tests/e2e/test_board_walk_through.py, with all of this.
    board = re.sub(
        r"\n### (A station follows|An order comes|What happened).*?(?=\n### )", "", README, flags=re.DOTALL
    )
    for text, language, block in re.findall(r"(.*?)```(console|yaml)\n(.*?)```", board, re.DOTALL):
        if language == "yaml":
            # The file that the text before it names first.
            name = re.findall(r"`(\w+\.yaml)`", text)[0]
            keys = re.sub(r"<(\w+\.pub)>", lambda match: Path(match[1]).read_text("utf-8").strip(), block)
            (tmp_path / name).write_text(keys)
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "pht-board"
            if arguments[0] in {"sign", "purposes", "dissent"}:
                arguments.append("--yes")
            if "witness.pem" in arguments:
                monkeypatch.delenv("PHT_PASSPHRASE")
            assert run(app, arguments) == 0, (line, capsys.readouterr().err)
            monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
    out = capsys.readouterr().out
    for said in (
        "Bob (lawyer) dissents: The benefit is not shown.",
        "Withdrew cxr-classification version 1",
        "Withdrew the requester of",
        "The root is in force.",
    ):
        assert said in out
