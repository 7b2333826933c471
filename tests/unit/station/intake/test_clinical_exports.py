"""Exports of Castor and OpenClinica under their mappings, mappings that are wrong, and files that mean harm."""

import contextlib
from pathlib import Path

import pytest
from clinical_kit import CASTOR_COLUMNS, castor, openclinica
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import DocumentError, NotFoundError
from policies.profiles import load_profile
from station.intake.clinical.cells import read_day
from station.intake.clinical.delimited import MAX_COLUMNS
from station.intake.clinical.export import Reading, read_export
from station.intake.clinical.mapping import (
    ExportMapping,
    plain_mapping,
    read_mapping,
    shipped_mapping,
    shipped_mappings,
)
from station.intake.csv_reader import CsvError

CASTOR = read_mapping(shipped_mapping("castor-ncif-covid-1"))
OPENCLINICA = read_mapping(shipped_mapping("openclinica-thorax-1"))
PLAIN = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"


def read(data: bytes, mapping: ExportMapping = CASTOR) -> Reading:
    return read_export(data, load_profile(mapping.profile), mapping)


def plain(data: bytes) -> Reading:
    return read_export(data, load_profile())


def mapping_with(*changes: tuple[str, str]) -> bytes:
    text = shipped_mapping("castor-ncif-covid-1").decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def test_castor_as_it_comes() -> None:
    reading = read(castor({}))
    assert reading.report.refused == 0, reading.report.problems
    (entry,) = reading.entries
    assert (entry.key.patient_id, entry.key.accession, entry.key.issuer) == ("3748755", "A1000", "")
    assert entry.values["rt_pcr"] == "positive"
    assert entry.values["co_rads"] == 5
    assert entry.values["oxygen_support"] == "low-flow"
    assert entry.values["saturation_percent"] == 91.0
    assert entry.values["sex"] == "F"
    assert entry.values["hypertension"] is True
    assert entry.values["admission_date"] == "2020-09-16"
    assert entry.values["fever"] is None, "##USER_MISSING_98##"
    assert entry.values["crp_mg_l"] is None, "-99"
    assert entry.dates == {
        "rt_pcr_days": "2020-09-15", "symptom_onset_days": "2020-09-10", "icu_admission_days": "2020-09-19",
        "age_years": "1975-11-22",
    }  # fmt: skip
    assert "Testpatient" not in repr(reading), "a column that is not named is not read"


def test_castors_codes_for_missing_are_missing() -> None:
    reading = read(
        castor({"onset_date": "01-01-2996", "adm_temp": "-95", "icu_yn": "##USER_MISSING_99##", "bmi": "-97"})
    )
    (entry,) = reading.entries
    assert "symptom_onset_days" not in entry.dates
    assert (entry.values["temperature_c"], entry.values["icu_admission"], entry.values["bmi_kg_m2"]) == (
        None,
        None,
        None,
    )
    assert reading.report.fields["temperature_c"].missing == 1


def test_archived_participants_are_left_out_and_counted() -> None:
    reading = read(castor({}, {"Participant Status": "Archived", "pat_number": "secret"}))
    assert (reading.report.rows, reading.report.skipped, len(reading.entries)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("changes", "column", "problem"),
    [
        ({"pcr_result": "7"}, "pcr_result", "unknown-code"),
        ({"pcr_result": ""}, "pcr_result", "missing"),
        ({"pcr_result": "##USER_MISSING_95##"}, "pcr_result", "missing"),
        ({"adm_sat": "191"}, "adm_sat", "out-of-range"),
        ({"adm_sat": "91,5"}, "adm_sat", "not-its-type"),
        ({"ct_severity": "1.5"}, "ct_severity", "not-its-type"),
        ({"corads_score": "7"}, "corads_score", "unknown-code"),
        ({"onset_date": "2020-09-10"}, "onset_date", "not-a-date"),
        ({"adm_date": "31-09-2020"}, "adm_date", "not-a-date"),
        ({"adm_date": "UK-09-2020"}, "adm_date", "not-a-date"),
        ({"sex": "=HYPERLINK(1)"}, "sex", "formula"),
        ({"pat_number": "@SUM(1)"}, "pat_number", "formula"),
        ({"pat_number": "##USER_MISSING_99##"}, "pat_number", "missing"),
        ({"smoking": "x" * 300}, "smoking", "not-plain-text"),
        ({"smoking": "1\n2"}, "smoking", "not-plain-text"),
        ({"birth_date": "22-11-1975\u200e"}, "birth_date", "not-plain-text"),
    ],
)
def test_a_wrong_cell_is_named_and_never_quoted(changes: dict[str, str], column: str, problem: str) -> None:
    reading = read(castor({}, {"study_accession": "A2", **changes}))
    (found,) = reading.report.problems
    assert (found.column, found.fault.value) == (column, problem)
    assert found.line == 4, "the remark of the row before runs over two lines"
    (kept,) = reading.entries
    assert kept.key.accession == "A1000"
    (wrong,) = changes.values()
    assert not wrong or wrong not in repr(reading.report)


def test_openclinica_as_it_comes() -> None:
    reading = read(
        openclinica(
            ("S1", "THX-1", "3748755", "available", "f", "22-Nov-1975", "17-Sep-2020", "17-Sep-2020", "yes", "38.4", "2.82",
             "20-Sep-2020", "no", "UNK", "", "1"),
            ("S2", "THX-1", "9252896", "available", "m", "18-Jan-1952", "", "01-Oct-2020", "no", "36.9", "0.31", "", "", "", "", "2"),
            ("S3", "THX-1", "7", "removed", "m", "x", "", "", "", "", "", "", "", "", "", ""),
        ),
        OPENCLINICA,
    )  # fmt: skip
    assert reading.report.refused == 0, reading.report.problems
    assert (reading.report.rows, reading.report.skipped) == (3, 1)
    first, second, third = reading.entries
    assert [(entry.key.issuer, entry.key.patient_id, entry.key.day) for entry in reading.entries] == [
        ("UMC", "3748755", "2020-09-17"), ("UMC", "3748755", "2020-09-20"), ("UMC", "9252896", "2020-10-01"),
    ]  # fmt: skip
    assert first.values == {
        "pneumonia": 1,
        "sex": "F",
        "age_years": None,
        "temperature_c": 38.4,
        "crp_mg_l": 28.2,
        "smoker": True,
    }
    assert (second.values["pneumonia"], second.values["temperature_c"], second.values["crp_mg_l"]) == (
        0,
        None,
        None,
    )
    assert third.values["smoker"] is False
    assert {entry.dates["age_years"] for entry in reading.entries} == {"1975-11-22", "1952-01-18"}


def test_an_extract_without_its_table_says_which_column_it_looked_for() -> None:
    with pytest.raises(CsvError, match="Study Subject ID: no line begins with this column"):
        read(b"Dataset Name:\tThorax\n", OPENCLINICA)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "line 1, column patient_id: the column is missing"),
        (PLAIN.replace(b",", b";"), "column patient_id: the column is missing"),
        (PLAIN.replace(b"sex", b"pneumonia"), "column pneumonia: the column stands twice"),
        (PLAIN[:-1] + b",pneumonia\n", "column pneumonia: the column stands twice"),
        (PLAIN[:-1] + b",secret\n", "column number 9: is not a column this file may have"),
        (PLAIN + b"1,A1,1,F,,,,\x00yes\n", "line 2: holds a character that text does not have"),
        (PLAIN.decode().encode("utf-16"), "is not UTF-8 text"),
        (PLAIN + b"1,A1,1,F,,,,yes\n2,A2,\xff,F,,,,\n", "line 3: is not UTF-8 text"),
        (PLAIN + b'1,"A1"x,1,F,,,,yes\n', "line 2: is not valid CSV"),
        (PLAIN + b'1,"A1,1,F,,,,yes\n', "is not valid CSV"),
        (PLAIN + b"1," + b"x" * 200_000 + b",1,F,,,,yes\n", "line 2: is not valid CSV"),
        (b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n", f"has more than {MAX_COLUMNS} columns"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_table_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(CsvError) as caught:
        plain(data)
    assert says in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


def test_columns_that_are_not_named_may_stand_twice_where_others_are_ignored() -> None:
    columns = (*CASTOR_COLUMNS, "remarks", "remarks")
    assert read(castor({}, columns=columns)).report.refused == 0
    with pytest.raises(CsvError, match="column sex: the column stands twice"):
        read(castor({}, columns=(*CASTOR_COLUMNS, "sex")))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_way_even_mixed(newline: bytes) -> None:
    data = b"\xef\xbb\xbf" + PLAIN.strip() + newline + b"1,A1,1,F,,,,yes\r\n" + newline + b"2,A2,0,M,,,,no\n"
    assert [entry.key.patient_id for entry in plain(data).entries] == ["1", "2"]


def test_other_encodings_where_the_mapping_says_so() -> None:
    wide = read_mapping(mapping_with(("encoding: utf-8", "encoding: utf-16")))
    assert read(castor({}).decode("utf-8-sig").encode("utf-16"), wide).report.accepted == 1
    with pytest.raises(CsvError, match="is not UTF-16 text"):
        read(b"\xff\xfe\x00", wide)
    western = read_mapping(mapping_with(("encoding: utf-8", "encoding: windows-1252")))
    assert (
        read(castor({"remarks": "naïef"}).decode("utf-8-sig").encode("windows-1252"), western).report.accepted
        == 1
    )


def test_a_decimal_comma_where_the_mapping_says_so() -> None:
    comma = read_mapping(mapping_with(('decimal_mark: "."', 'decimal_mark: ","')))
    (entry,) = read(castor({"adm_temp": "38,4"}), comma).entries
    assert entry.values["temperature_c"] == 38.4


@given(st.binary(max_size=400))
def test_no_file_makes_it_fail_in_another_way(data: bytes) -> None:
    for mapping in (plain_mapping(load_profile()), CASTOR, OPENCLINICA):
        for bytes_read in (data, PLAIN + data):
            with contextlib.suppress(CsvError):
                read(bytes_read, mapping)


@given(st.text(max_size=30))
def test_a_date_is_read_in_its_own_form_or_not_at_all(text: str) -> None:
    day = read_day(text, "dd-mm-yyyy")
    assert day is None or f"{day[8:]}-{day[5:7]}-{day[:4]}" == text


@pytest.mark.parametrize("name", shipped_mappings())
def test_the_examples_are_mappings(name: str) -> None:
    assert read_mapping(shipped_mapping(name)).name == name


def test_both_programs_have_an_example() -> None:
    assert {read_mapping(shipped_mapping(name)).source for name in shipped_mappings()} == {
        "castor",
        "openclinica",
    }
    for name in ("", "../mapping", "nothing"):
        with pytest.raises(NotFoundError):
            shipped_mapping(name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("co_rads: {column: corads_score}", "corads: {column: corads_score}"),
            "fields.corads: is not a field of",
        ),
        (('"1": positive', '"1": yes_please'), "values.1: does not fit the field"),
        (("{date_column: onset_date}", "{column: a, date_column: b}"), "name column or date_column"),
        (("adm_temp}", "adm_temp, times: 0}"), "times"),
        (("{column: adm_date}", "{date_column: adm_date}"), "only age and days are computed from a date"),
        (("{column: sex, ", "{column: sex, times: 2, "), "only numbers are multiplied"),
        (("column: study_accession", 'column: "acc_{n}"'), "repeats"),
        (("schema_version: 1", "schema_version: 2"), "schema_version"),
        (("source: castor", "source: castor\nformula: 1"), "line 15: formula is not a known key"),
        (("profile: ncif-covid-1@1", "profile: ncif-covid-1"), "profile"),
        (("  rt_pcr: {column", "  rt_pcr_: {column"), "rt_pcr: is required"),
        (("dates: dd-mm-yyyy", "dates: whatever"), "dates"),
    ],
)
def test_a_mapping_that_is_wrong_is_refused(change: tuple[str, str], says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_mapping(mapping_with(change))
    assert says in caught.value.message


def test_a_mapping_of_an_unknown_profile_is_refused() -> None:
    with pytest.raises(NotFoundError):
        read_mapping(mapping_with(("profile: ncif-covid-1@1", "profile: ncif-covid-1@9")))


@pytest.mark.shared_data
def test_the_shared_forms_are_read_whole(shared_data: Path) -> None:
    forms = sorted(shared_data.glob("cxr/*/ecrf.csv"))
    assert len(forms) == 3
    for path in forms:
        report = plain(path.read_bytes()).report
        assert (report.rows, report.refused) == (80, 0)
