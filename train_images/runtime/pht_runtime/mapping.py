"""Runs the image's own program for the one patient of this container, in any language, and sends its row.

The program finds the patient under ``/train/data`` and the request in ``request/head.json`` of its working folder. It writes one
row: ``reply/row.json`` (an object) or ``reply/row.txt`` (a line ``name=value`` per column). A value that is missing is null, or
nothing after the ``=``; ``error`` in place of the columns names an error of the train's manifest.

Imports little: it is started once for every patient.
"""

from collections.abc import Sequence
from pathlib import Path

from .command import make_folders, read_object, run_program
from .frames import MAX_HEAD_BYTES, Json, Request
from .reply import UNCAUGHT, Reply


class MapTrain:
    """A program that sees one patient."""

    def __init__(self, argv: Sequence[str], scratch: Path) -> None:
        self._argv = list(argv)
        self._scratch = scratch

    def answer(self, request: Request) -> Reply:
        """Run the program once and return its row; the station reads a row where other trains have metrics."""
        folder = self._scratch / str(int(str(request.head["id"])))
        make_folders(folder, request)
        code = run_program(self._argv, folder)
        row = _read_row(folder / "reply")
        if isinstance(error := row.get("error"), str):
            return Reply(error=error)
        return Reply(error=UNCAUGHT) if code != 0 else Reply(metrics=row)


def _read_row(reply: Path) -> dict[str, Json]:
    lines = reply / "row.txt"
    if not lines.is_file():
        return read_object(reply / "row.json", MAX_HEAD_BYTES)
    with lines.open(encoding="utf-8") as file:
        text = file.read(MAX_HEAD_BYTES + 1)
    if len(text) > MAX_HEAD_BYTES:
        raise ValueError(f"reply/row.txt is larger than {MAX_HEAD_BYTES} bytes")
    row: dict[str, Json] = {}
    for line in text.splitlines():
        if line.strip():
            name, equals, value = line.partition("=")
            if not equals or name.strip() in row:
                raise ValueError("reply/row.txt has a line that is no name=value, or a name twice")
            row[name.strip()] = _value(value.strip())
    return row


def _value(text: str) -> Json:
    """Return a number where it reads as one, nothing for nothing, else the text.

    >>> [_value(text) for text in ("3", "0.5", "", "F", "1e-3")]
    [3, 0.5, None, 'F', 0.001]
    """
    if not text:
        return None
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
