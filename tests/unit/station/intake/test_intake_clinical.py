"""eCRF exports in the plain format: strict, whole or not at all, ages and days computed at the study."""

from datetime import date

import pytest

from policies.profiles import ClinicalValue, load_profile
from station.intake.clinical.export import ClinicalEntry, read_export
from station.intake.clinical.linking import KnownStudy, StoredRow, studies_of, values_at
from station.intake.clinical.report import ExportRefusedError, RowFault

HEADER = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"
GOOD = b"1,A1,1,F,1975-11-22,39.2,28.2,yes\n"


def study(day: str | None, uid: str = "2.25.1", accession: str = "A1") -> KnownStudy:
    return KnownStudy(uid, "P" + "A" * 20, accession, date.fromisoformat(day) if day else None)


def stored(entry: ClinicalEntry, **changes: object) -> StoredRow:
    row: dict[str, object] = {
        "id": 1, "version": 1, "issuer": "", "patient_id": "1", "accession": entry.key.accession, "day": None,
        "link": "accession", "days_before": 0, "days_after": 0, "every": False, "fields": entry.values, "dates": entry.dates,
    }  # fmt: skip
    return StoredRow(**{**row, **changes})  # type: ignore[arg-type]


def at(data: bytes, day: str | None, shift: int | None = -100) -> dict[str, ClinicalValue]:
    profile = load_profile()
    (entry,) = read_export(data, profile).entries
    return values_at([stored(entry)], profile, study(day), shift)


def test_a_row_becomes_the_agreed_fields() -> None:
    assert at(HEADER + GOOD, "2020-09-17") == {
        "pneumonia": 1, "sex": "F", "age_years": 44, "temperature_c": 39.2, "crp_mg_l": 28.2, "smoker": True,
    }  # fmt: skip


def test_what_is_not_known_is_none() -> None:
    values = at(HEADER + b"1,A1,,,,,,\n", "2020-09-17")
    assert len(values) == 6
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        ("1975-11-22", "2020-11-21", 44),
        ("1975-11-22", "2020-11-22", 45),
        ("1910-01-01", "2020-01-01", 90),
        ("1975-11-22", "1970-01-01", None),
        ("1975-11-22", None, None),
    ],
)
def test_age_is_in_whole_years_at_the_study_and_shared_from_ninety_on(
    born: str, day: str | None, age: int | None
) -> None:
    assert at(HEADER + f"1,A1,1,F,{born},,,\n".encode(), day)["age_years"] == age


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"1,A1,2,F,1975-11-22,39.2,28.2,yes", "pneumonia"),
        (b"1,A1,0.5,F,1975-11-22,39.2,28.2,yes", "pneumonia"),
        (b"1,A1,1,female,1975-11-22,39.2,28.2,yes", "sex"),
        (b"1,A1,1,F,22-11-1975,39.2,28.2,yes", "birth_date"),
        (b"1,A1,1,F,1975-11-31,39.2,28.2,yes", "birth_date"),
        (b"1,A1,1,F,1975-11-22,392,28.2,yes", "temperature_c"),
        (b"1,A1,1,F,1975-11-22,nan,28.2,yes", "temperature_c"),
        (b"1,A1,1,F,1975-11-22,1e1,28.2,yes", "temperature_c"),
        (b"1,A1,1,F,1975-11-22,39.2,inf,yes", "crp_mg_l"),
        (b"1,A1,1,F,1975-11-22,39.2,<5,yes", "crp_mg_l"),
        (b"1,A1,1,F,1975-11-22,39.2,28.2,ja", "smoker"),
        (b",A1,1,F,1975-11-22,39.2,28.2,yes", "patient_id"),
        (b"1,,1,F,1975-11-22,39.2,28.2,yes", "accession"),
        (b"1" * 65 + b",A1,1,F,1975-11-22,39.2,28.2,yes", "patient_id"),
        (b"=1+1,A1,1,F,1975-11-22,39.2,28.2,yes", "patient_id"),
    ],
)
def test_a_wrong_value_is_found_by_line_and_column(row: bytes, column: str) -> None:
    reading = read_export(HEADER + b"7,A7,0,M,1980-01-01,,,\n" + row + b"\n", load_profile())
    (problem,) = reading.report.problems
    assert (problem.line, problem.column) == (3, column)
    assert (reading.report.rows, reading.report.accepted, reading.report.refused) == (2, 1, 1)
    assert [entry.key.patient_id for entry in reading.entries] == ["7"]


def test_a_refusal_names_the_first_wrong_cell_and_no_value() -> None:
    report = read_export(HEADER + b"secret,A1,9,F,,,,\nsecret,A2,1,secret,,,,\n", load_profile()).report
    error = ExportRefusedError("ecrf.csv", report)
    assert (error.line, error.column) == (2, "pneumonia")
    assert (
        error.message
        == "ecrf.csv, line 2, column pneumonia: is not one of the field's values (2 rows are wrong)"
    )
    assert "--dry-run" in error.hint
    assert "secret" not in repr(report)


def test_a_study_that_stands_twice_is_wrong_the_second_time() -> None:
    report = read_export(HEADER + GOOD + GOOD, load_profile()).report
    assert [(found.line, found.column, found.fault) for found in report.problems] == [
        (3, "accession", RowFault.STANDS_TWICE)
    ]


def test_fields_are_counted() -> None:
    rows = GOOD + b"2,A2,0,F,,,,\n3,A3,7,X,1980-01-01,99,,no\n4,A4,1\n"
    report = read_export(HEADER + rows, load_profile()).report
    counted = {name: (c.present, c.missing, dict(c.wrong)) for name, c in report.fields.items()}
    assert counted["pneumonia"] == (2, 0, {"unknown-code": 1})
    assert counted["sex"] == (2, 0, {"unknown-code": 1})
    assert counted["temperature_c"] == (1, 1, {"out-of-range": 1})
    assert counted["age_years"] == (2, 1, {})
    assert (report.rows, report.accepted, report.wrong_cells) == (4, 2, 4)
    assert (report.problems[-1].line, report.problems[-1].fault) == (5, RowFault.WRONG_LENGTH)


def test_a_report_lists_a_hundred_and_counts_them_all() -> None:
    rows = b"".join(b"%d,A,9,F,,,,\n" % number for number in range(250))
    report = read_export(HEADER + rows, load_profile()).report
    assert (len(report.problems), report.wrong_cells, report.refused) == (100, 250, 250)


def test_dates_are_shifted_as_the_images_are_and_left_out_where_none_stay() -> None:
    profile = load_profile("ncif-covid-1@1")
    entry = ClinicalEntry(
        key=read_export(HEADER + GOOD, load_profile()).entries[0].key,
        values={"admission_date": "2020-03-10"},
        dates={
            "symptom_onset_days": "2020-03-05",
            "icu_admission_days": "2020-03-14",
            "rt_pcr_days": "2019-01-01",
        },
    )
    values = values_at([stored(entry)], profile, study("2020-03-12"), -100)
    assert values["admission_date"] == "2019-12-01"
    assert values["symptom_onset_days"] == 7
    assert values["icu_admission_days"] == 2
    assert values["rt_pcr_days"] is None, "a year before the study is out of the field's range"
    assert values_at([stored(entry)], profile, study("2020-03-12"), None)["admission_date"] is None


def test_what_is_linked_more_closely_is_believed_first_and_the_others_fill_in() -> None:
    profile = load_profile()
    (entry,) = read_export(HEADER + GOOD, profile).entries
    whole = stored(
        entry, id=1, link="patient", fields={"sex": "M", "smoker": False, "pneumonia": 0}, dates={}
    )
    dated = stored(entry, id=2, link="date", fields={"sex": "F", "pneumonia": None}, dates={})
    exact = stored(entry, id=3, fields={"pneumonia": 1}, dates={})
    values = values_at([whole, dated, exact], profile, study("2020-09-17"), 0)
    assert (values["pneumonia"], values["sex"], values["smoker"]) == (1, "F", False)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"link": "accession", "accession": "A2"}, ["2"]),
        ({"link": "patient"}, ["1", "2", "3", "4"]),
        ({"link": "date", "day": "2020-03-10"}, ["2"]),
        ({"link": "date", "day": "2020-03-09"}, []),
        ({"link": "date", "day": "2020-03-09", "days_after": 1}, ["2"]),
        ({"link": "date", "day": "2020-03-11", "days_before": 1}, ["2"]),
        ({"link": "date", "day": "2020-03-11", "days_before": 1, "days_after": 1}, ["3"]),
        ({"link": "date", "day": "2020-03-11", "days_before": 1, "days_after": 1, "every": True}, ["2", "3"]),
    ],
)  # fmt: skip
def test_a_row_finds_its_studies(changes: dict[str, object], found: list[str]) -> None:
    (entry,) = read_export(HEADER + GOOD, load_profile()).entries
    if isinstance(changes.get("day"), str):
        changes = {**changes, "day": date.fromisoformat(str(changes["day"]))}
    studies = [
        study("2020-01-01", "1"), study("2020-03-10", "2", "A2"), study("2020-03-12", "3"), study(None, "4"),
    ]  # fmt: skip
    assert [known.study_uid for known in studies_of(stored(entry, **changes), studies)] == found
