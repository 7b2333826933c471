"""A researcher writes terminal escapes, markup and line breaks into a manifest, to change what the board reads."""

from pathlib import Path

import pytest
import yaml
from board_kit import BoardKit

from policies.cli import app
from policies.console import run, say, say_table

TITLE = (
    "Harmless\x1b[2J\x1b[1;1HWhat may leave each hospital\n  Nothing.\x07 [bold]\u202egnp.exe\u2066 \x9b31m"
)


def test_a_review_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = BoardKit.found(tmp_path)
    document = yaml.safe_load(board.policy())
    document["title"] = TITLE
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(document))
    assert run(app, ["review", str(tmp_path / "policy.yaml")]) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066"} & set(out)
    assert "\n  Nothing." not in out
    assert out.count("\nWhat may leave each hospital\n") == 1
    assert "[bold]" in out


def test_tables_and_errors_do_not_obey_either(capsys: pytest.CaptureFixture[str]) -> None:
    say(TITLE)
    say_table("Policies", ("title",), [(TITLE,), ("[red]x[/red]",)])
    assert run(app, ["review", TITLE.replace("\n", "")]) != 0
    captured = capsys.readouterr()
    assert "\x1b[2J" not in captured.out + captured.err
    assert "[red]x[/red]" in captured.out
