"""The edge that all four programs share: options, output, and how an error reaches a person or a script.

Decides nothing. Results go to stdout, errors to stderr: a message and what to do about it, or with ``--json`` one JSON
object ``{"error": {"code", "message", "hint", "exit_code"}}``. The exit codes are `policies.errors.ExitCode`. The text
of an exception that is not ours is never shown: it may quote data.
"""

import dataclasses
import errno
import json
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn, get_type_hints

import typer
from pydantic import BaseModel

from policies.documents import format_moment
from policies.errors import ExitCode, PhtError, RefusedError, StorageError, UnavailableError

JsonOption = Annotated[bool, typer.Option("--json", help="Write the result (and any error) as JSON.")]
"""The ``--json`` switch, the same in every command."""

_INTERRUPTED = 130
_STORAGE_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_ADDRESS_ERRNO = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}


def new_app(help_text: str) -> typer.Typer:
    """Return a Typer application set up as all our programs are."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def program(app: typer.Typer) -> Callable[[], NoReturn]:
    """Return the ``main`` of a program: runs `app` and ends the process with a documented exit code."""

    def main() -> NoReturn:
        sys.exit(run(app, sys.argv[1:]))

    return main


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are written to stderr."""
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(app)
        if "--help" in arguments:
            _restore_help_of_arguments(command)
        result = command.main(args=list(arguments), standalone_mode=False)
    except PhtError as error:
        show_error(error, as_json=as_json)
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away; give the interpreter nothing to flush to it.
        sys.stdout = None
        return int(ExitCode.OK)
    except OSError as error:
        fault = _from_os_error(error)
        show_error(fault, as_json=as_json)
        return int(fault.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost boundary of a process
        return _show_foreign(error, as_json=as_json)
    return result if isinstance(result, int) else int(ExitCode.OK)


def exit_code_of(work: Callable[[], None]) -> int:
    """Do what a module's own command line asks for and return its exit code; one of our errors is written to stderr."""
    try:
        work()
    except PhtError as error:
        show_error(error, as_json=False)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _restore_help_of_arguments(command: object) -> None:
    """Give each argument the help that it was declared with: click 8.5 sets its own attribute of that name, after typer 0.20 has."""
    for below in getattr(command, "commands", {}).values():
        _restore_help_of_arguments(below)
    callback = getattr(command, "callback", None)
    declared = get_type_hints(callback, include_extras=True) if callback is not None else {}
    for parameter in getattr(command, "params", ()):
        for note in getattr(declared.get(parameter.name), "__metadata__", ()):
            if isinstance(note, typer.models.ArgumentInfo) and getattr(parameter, "help", None) is None:
                parameter.help = note.help


def _from_os_error(error: OSError) -> PhtError:
    name = Path(str(error.filename)).name if error.filename else ""
    where = f"{name}: " if name else ""
    if error.errno in _ADDRESS_ERRNO:
        return UnavailableError(f"the address cannot be used ({error.strerror})", hint="Choose another port.")
    if error.errno in _STORAGE_ERRNO:
        return StorageError(
            f"{where}{error.strerror}", hint="Look at the free space and at the owner and mode of the folder."
        )
    return PhtError(f"{where}{error.strerror or type(error).__name__}")


def _show_foreign(error: Exception, *, as_json: bool) -> int:
    # click's own errors, by shape rather than by import: they know their exit code and how to say what is wrong
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context = getattr(error, "ctx", None)
        hint = f"See `{context.command_path} --help`." if context is not None else ""
        _write_error("UsageError", format_message(), hint, ExitCode.USAGE, as_json=as_json)
        return int(ExitCode.USAGE)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "/".join(Path(frame.filename).parts[-2:])
    message = f"unexpected {type(error).__name__} at {where}:{frame.lineno}"
    _write_error(
        "Fault",
        message,
        "This is a mistake in the program: please report it.",
        ExitCode.FAILURE,
        as_json=as_json,
    )
    return int(ExitCode.FAILURE)


def show_error(error: PhtError, *, as_json: bool) -> None:
    """Write one of our errors to stderr; a refusal shows its code."""
    code, hint = type(error).__name__, error.hint
    if isinstance(error, RefusedError):
        code, hint = error.code, hint or _what_to_do(error.code)
    _write_error(code, error.message, hint, error.exit_code, as_json=as_json)


def _what_to_do(code: str) -> str:
    """Return what the catalogue says to do about a refusal; other programs' codes are not in it."""
    from policies.refusal_texts import text_of  # noqa: PLC0415 - read for an error alone
    from policies.refusals import RefusalCode  # noqa: PLC0415

    return text_of(code).do if code in set(RefusalCode) else ""


def _write_error(code: str, message: str, hint: str, exit_code: ExitCode, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": code, "message": message, "hint": hint, "exit_code": int(exit_code)}}
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    refused = f"refused ({code})" if exit_code is ExitCode.REFUSED else "error"
    red, end = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    sys.stderr.write(f"{red}{refused}:{end} {visible(message)}\n")
    if hint:
        sys.stderr.write(f"  {visible(hint)}\n")


def echo_json(value: object) -> None:
    """Write a value to stdout as indented JSON; takes models, dataclasses, moments and paths."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # One level only; json comes back here for what is nested.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return format_moment(value)
    if isinstance(value, frozenset | set):
        return sorted(value, key=str)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def visible(text: str) -> str:
    r"""Return a text in which nothing is hidden: control and direction characters become U+FFFD.

    What we show comes from documents that others wrote, and a terminal obeys escape sequences.

    >>> visible("harmless\x1b[2Jtext")
    'harmless�[2Jtext'
    """
    return "".join("\ufffd" if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def say(text: str = "") -> None:
    """Write a line for a person to stdout."""
    sys.stdout.write(visible(text) + "\n")


def one_line(text: str) -> str:
    r"""Return a text on one line: with line breaks of its own it could pass for lines of ours.

    >>> one_line("UMC A\n  identity: forged")
    'UMC A identity: forged'
    """
    return " ".join(text.split())


def say_line(text: str) -> None:
    """Write exactly one line for a person to stdout, whatever a document's texts in it hold; its indentation stays."""
    indentation = text[: len(text) - len(text.lstrip(" "))]
    say(indentation + one_line(text))


def say_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table for a person to stdout."""
    from rich.console import Console  # noqa: PLC0415 - a command that prints no table starts faster
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As `Text`: rich would read markup in what others wrote.
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
