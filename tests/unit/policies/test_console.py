"""The edge of all programs: exit codes, errors for people and for scripts, nothing foreign shown."""

import errno
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
import typer

from policies.console import JsonOption, echo_json, exit_code_of, new_app, run
from policies.errors import ExitCode, PhtError, RefusedError, StorageError, TrustError
from policies.errors import __dict__ as errors

app = new_app("A program.")


@app.command()
def fail(kind: str, as_json: JsonOption = False) -> None:
    faults: dict[str, BaseException] = {
        "trust": TrustError("the key is wrong", hint="Take the right one."),
        "refused": RefusedError("POLICY_MISSING", "no policy"),
        "full": OSError(errno.ENOSPC, "No space left on device", "/secret/patient-7/file.dcm"),
        "port": OSError(errno.EADDRINUSE, "Address already in use"),
        "other": OSError(errno.ENOTDIR, "Not a directory", "/secret/patient-7/file.dcm"),
        "bug": KeyError("a patient's name"),
        "abort": typer.Abort(),
        "interrupt": KeyboardInterrupt(),
    }
    if kind in faults:
        raise faults[kind]
    raise typer.Exit(int(kind))


def test_a_module_without_commands_ends_with_a_text_and_a_code_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        raise TrustError("the key is wrong", hint="Take the right one.")

    assert exit_code_of(work) == ExitCode.TRUST
    assert capsys.readouterr().err == "error: the key is wrong\n  Take the right one.\n"
    assert exit_code_of(lambda: None) == ExitCode.OK


@app.command()
def good() -> None:
    echo_json({"fine": True})


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("trust", ExitCode.TRUST, "error: the key is wrong\n  Take the right one.\n"),
        ("refused", ExitCode.REFUSED, "refused (POLICY_MISSING): no policy\n"),
        ("full", ExitCode.STORAGE, "error: file.dcm: No space left on device"),
        ("port", ExitCode.UNAVAILABLE, "Choose another port"),
        ("other", ExitCode.FAILURE, "error: file.dcm: Not a directory"),
        ("bug", ExitCode.FAILURE, "unexpected KeyError at policies/test_console.py:"),
        ("abort", 130, "interrupted"),
        ("interrupt", 130, ""),
        ("3", 3, ""),
        ("0", 0, ""),
    ],
)
def test_what_goes_wrong_has_a_text_and_a_code(
    capsys: pytest.CaptureFixture[str], kind: str, code: int, said: str
) -> None:
    assert run(app, ["fail", kind]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "patient" not in captured.err
    assert "Traceback" not in captured.err


def test_a_script_reads_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["fail", "trust", "--json"]) == ExitCode.TRUST
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "TrustError",
            "message": "the key is wrong",
            "hint": "Take the right one.",
            "exit_code": 5,
        }
    }
    assert run(app, ["fail", "bug", "--json"]) == ExitCode.FAILURE
    assert "patient" not in capsys.readouterr().err


def test_success_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["good"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"fine": True}
    assert run(app, ["fail"]) == ExitCode.USAGE
    assert "--help" in capsys.readouterr().err
    assert run(app, ["--nonsense"]) == ExitCode.USAGE


@dataclass(frozen=True)
class Thing:
    when: datetime
    where: Path
    who: frozenset[str]
    inner: "Thing | None" = None


def test_json_takes_our_values(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    echo_json(Thing(moment, Path("x"), frozenset({"b", "a"}), Thing(moment, Path("y"), frozenset())))
    found = json.loads(capsys.readouterr().out)
    assert found["when"] == "2026-01-02T03:04:05Z"
    assert found["who"] == ["a", "b"]
    assert found["inner"]["where"] == "y"
    with pytest.raises(TypeError):
        echo_json(object())


def test_every_error_of_the_tree_has_an_exit_code() -> None:
    classes = [item for item in errors.values() if isinstance(item, type) and issubclass(item, PhtError)]
    assert len(classes) > 10
    assert all(isinstance(item.exit_code, ExitCode) for item in classes)
    assert StorageError("x").exit_code == 7


def test_an_argument_is_explained_like_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    app = new_app("A program.")
    inner = new_app("More.")
    app.add_typer(inner, name="inner")

    @app.command()
    def outer(folder: Annotated[Path, typer.Argument(help="Where it lies.")]) -> None:
        """Do something."""

    @inner.command("do")
    def act(
        name: Annotated[str, typer.Argument(help="Whose it is.")],
        loud: Annotated[bool, typer.Option(help="Whether to say so.")] = False,
    ) -> None:
        """Do more."""

    @inner.command("other")
    def other() -> None:
        """Do nothing."""

    for path, words in ((["outer"], "Where it lies."), (["inner", "do"], "Whose it is.")):
        assert run(app, [*path, "--help"]) == ExitCode.OK
        assert words in capsys.readouterr().out
