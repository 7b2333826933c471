"""Reads a delimited file of untrusted origin: bounded, strict, a row at a time.

Invariant: an error never holds a value of the file; column names are quoted only where the reader's caller named them.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from station.intake.clinical.mapping import TableForm
from station.intake.csv_reader import MAX_CSV_BYTES, CsvError

MAX_COLUMNS = 5000
MAX_LINES = 2_000_000
MAX_LINES_BEFORE_HEADER = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file; `cells` is None where it has not as many as the header."""

    number: int
    cells: list[str] | None


class Delimited:
    """A delimited file with a header.

    Args:
        data: the file's bytes.
        form: how it is written.
        file: what to call it in errors.

    Raises:
        CsvError: it is too large, not in its encoding, or has no header.
    """

    def __init__(self, data: bytes, form: TableForm, file: str) -> None:
        if len(data) > MAX_CSV_BYTES:
            raise CsvError(file, 1, None, f"the file is over {MAX_CSV_BYTES} bytes")
        self._file = file
        text = _decode(data, form, file)
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise CsvError(file, line, None, "holds a character that text does not have (NUL)")
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator, strict=True)
        self.header_line, header = self._find_header(form)
        self.columns = [name.strip() for name in header]
        if len(self.columns) > MAX_COLUMNS:
            raise CsvError(file, self.header_line, None, f"has more than {MAX_COLUMNS} columns")

    def require(self, wanted: list[str], *, only: bool) -> dict[str, int]:
        """Return where the wanted columns stand.

        Args:
            wanted: columns that must be there, each once.
            only: whether there may be no others.

        Raises:
            CsvError: naming a column that is missing or stands twice, or the place of one that may not be there.
        """
        counts = Counter(self.columns)
        for column in wanted:
            if counts[column] == 0:
                raise CsvError(self._file, self.header_line, column, "the column is missing")
            if counts[column] > 1:
                raise CsvError(self._file, self.header_line, column, "the column stands twice")
        if only and max(counts.values(), default=0) > 1:
            raise CsvError(self._file, self.header_line, None, "a column stands twice")
        known = set(wanted)
        if only:
            for position, name in enumerate(self.columns, start=1):
                if name not in known:
                    raise CsvError(
                        self._file,
                        self.header_line,
                        f"number {position}",
                        "is not a column this file may have",
                    )
        return {column: self.columns.index(column) for column in wanted}

    def lines(self) -> Iterator[Line]:
        """Yield the lines after the header; empty ones are left out.

        Raises:
            CsvError: naming the line.
        """
        count, last = 0, self._reader.line_num
        for cells in self._rows():
            # Where the row begins: a cell in quotes may run over several lines.
            number, last = last + 1, self._reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            count += 1
            if count > MAX_LINES:
                raise CsvError(self._file, number, None, f"has more than {MAX_LINES} rows")
            yield Line(number, cells if len(cells) == len(self.columns) else None)

    def _find_header(self, form: TableForm) -> tuple[int, list[str]]:
        for tried, cells in enumerate(self._rows()):
            if form.header_begins is None or (cells and cells[0].strip() == form.header_begins):
                return self._reader.line_num, cells
            if tried >= MAX_LINES_BEFORE_HEADER:
                break
        if form.header_begins is not None:
            raise CsvError(self._file, 1, form.header_begins, "no line begins with this column")
        return 1, []

    def _rows(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error:
            raise CsvError(self._file, self._reader.line_num, None, "is not valid CSV") from None


def _decode(data: bytes, form: TableForm, file: str) -> str:
    codec = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "windows-1252": "windows-1252"}[form.encoding]
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
    raise CsvError(file, line, None, f"is not {form.encoding.upper()} text")
