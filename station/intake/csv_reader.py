"""Reads the hospital's CSV files strictly: every column known, every row whole, an error names column and line.

Invariant: an error never holds a value of the file.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from policies.errors import DataError

MAX_CSV_BYTES = 256 << 20
MAX_FIELD_CHARACTERS = 200


class CsvError(DataError):
    """A CSV file is not what it must be.

    Attributes:
        line: where; 1 is the header.
        column: the column's name, where one is to blame.
    """

    def __init__(self, file: str, line: int, column: str | None, problem: str) -> None:
        where = f"{file}, line {line}" + (f", column {column}" if column else "")
        super().__init__(
            f"{where}: {problem}", hint="Correct the file and import it again; nothing was taken from it."
        )
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row, with what an error about it needs."""

    file: str
    line: int
    values: dict[str, str]

    def required(self, column: str) -> str:
        """Return a value that must not be empty."""
        value = self.values[column]
        if not value:
            raise self.error(column, "is empty")
        return value

    def day(self, column: str) -> str | None:
        """Return a date as YYYY-MM-DD, or None where the field is empty."""
        value = self.values[column]
        if not value:
            return None
        try:
            parsed = date.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is None or parsed.isoformat() != value:
            raise self.error(column, "is not a date of the form YYYY-MM-DD")
        return value

    def error(self, column: str, problem: str) -> CsvError:
        """Make an error about a value, without the value."""
        return CsvError(self.file, self.line, column, problem)


def read_csv(
    data: bytes, columns: tuple[str, ...], *, file: str, optional: tuple[str, ...] = ()
) -> list[CsvRow]:
    """Read a whole CSV file with these columns, in any order.

    Args:
        data: the file's bytes: UTF-8, with or without byte order mark, separated by commas.
        columns: the columns that must stand there, and no others.
        file: what to call the file in errors.
        optional: columns that may stand there too; where one does not, its values are empty.

    Raises:
        CsvError: naming line and column.
    """
    if len(data) > MAX_CSV_BYTES:
        raise CsvError(file, 1, None, f"the file is over {MAX_CSV_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CsvError(file, line, None, "is not UTF-8 text") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        names = [name.strip() for name in header]
        _check_header(names, columns, optional, file)
        absent = {name: "" for name in optional if name not in names}
        return list(_rows(reader, names, absent, file))
    except csv.Error:
        raise CsvError(file, reader.line_num, None, "is not valid CSV") from None


def _check_header(header: list[str], columns: tuple[str, ...], optional: tuple[str, ...], file: str) -> None:
    for column in columns:
        if column not in header:
            raise CsvError(file, 1, column, "the column is missing")
    if len(set(header)) != len(header):
        raise CsvError(file, 1, None, "a column stands twice")
    for position, name in enumerate(header, start=1):
        if name not in columns and name not in optional:
            raise CsvError(file, 1, f"number {position}", "is not a column this file may have")


def _rows(
    reader: Iterator[list[str]], header: list[str], absent: dict[str, str], file: str
) -> Iterator[CsvRow]:
    for fields in reader:
        line = getattr(reader, "line_num", 0)
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise CsvError(file, line, None, f"has {len(fields)} fields where the header has {len(header)}")
        values = {name: field.strip() for name, field in zip(header, fields, strict=True)}
        for name, value in values.items():
            if len(value) > MAX_FIELD_CHARACTERS or any(character < " " for character in value):
                raise CsvError(file, line, name, "is too long or holds a control character")
        yield CsvRow(file, line, {**absent, **values})
