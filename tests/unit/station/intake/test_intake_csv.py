import pytest

from policies.errors import ExitCode
from station.intake.csv_reader import CsvError, read_csv

COLUMNS = ("patient_id", "date")


def read(data: bytes) -> None:
    for row in read_csv(data, COLUMNS, file="x.csv"):
        row.required("patient_id")
        row.day("date")


def error(data: bytes) -> CsvError:
    with pytest.raises(CsvError) as caught:
        read(data)
    assert caught.value.exit_code is ExitCode.DATA
    assert caught.value.__cause__ is None
    assert "secret" not in str(caught.value)
    return caught.value


def test_columns_in_any_order_with_a_byte_order_mark_and_blank_lines() -> None:
    rows = read_csv(b"\xef\xbb\xbfdate, patient_id\r\n2020-01-31, 1\r\n\r\n,2\r\n", COLUMNS, file="x.csv")
    assert [row.values for row in rows] == [
        {"date": "2020-01-31", "patient_id": "1"},
        {"date": "", "patient_id": "2"},
    ]
    assert rows[0].day("date") == "2020-01-31"
    assert rows[1].day("date") is None
    assert rows[1].line == 4


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b"patient_id\n1\n", 1, "date"),
        (b"", 1, "patient_id"),
        (b"patient_id;date\n1;2020-01-31\n", 1, "patient_id"),
        (b"patient_id,date,secret\n1,2020-01-31,x\n", 1, "number 3"),
        (b"patient_id,date,date\n1,2020-01-31,x\n", 1, None),
        (b"patient_id,date\n1,2020-01-31\n2\n", 3, None),
        (b"patient_id,date\n1,2020-01-31,secret\n", 2, None),
        (b"patient_id,date\n1,2020-01-31\nsecret,31-01-2020\n", 3, "date"),
        (b"patient_id,date\nsecret,2020-02-30\n", 2, "date"),
        (b"patient_id,date\nsecret,20200131\n", 2, "date"),
        (b"patient_id,date\n,2020-01-31\n", 2, "patient_id"),
        (b"patient_id,date\n1,2020-01-31\n\xff\xfesecret,2020-01-31\n", 3, None),
        (b'patient_id,date\n"secret"x,2020-01-31\n', 2, None),
        (b"patient_id,date\nsecret\x07,2020-01-31\n", 2, "patient_id"),
        (b"patient_id,date\n" + b"secret" * 60 + b",2020-01-31\n", 2, "patient_id"),
    ],
)
def test_an_error_names_line_and_column_and_not_the_value(data: bytes, line: int, column: str | None) -> None:
    found = error(data)
    assert (found.line, found.column) == (line, column)
    assert f"line {line}" in found.message
