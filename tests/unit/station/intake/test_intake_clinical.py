import pytest

from policies.errors import NotFoundError
from policies.profiles import load_profile
from station.intake.clinical.export import read_export, values_at
from station.intake.csv_reader import CsvError

HEADER = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"
GOOD = b"1,A1,1,F,1975-11-22,39.2,28.2,yes\n"


def test_a_row_becomes_the_agreed_fields() -> None:
    profile = load_profile()
    (entry,) = read_export(HEADER + GOOD, profile)
    assert values_at(entry, profile, "20200917") == {
        "pneumonia": 1, "sex": "F", "age_years": 44, "temperature_c": 39.2, "crp_mg_l": 28.2, "smoker": True,
    }  # fmt: skip
    assert "birth_date" not in values_at(entry, profile, "20200917")


def test_what_is_not_known_is_none() -> None:
    profile = load_profile()
    (entry,) = read_export(HEADER + b"1,A1,,,,,,\n", profile)
    assert set(values_at(entry, profile, "20200917").values()) == {None}


@pytest.mark.parametrize(
    ("born", "study", "age"),
    [
        ("1975-11-22", "20201121", 44),
        ("1975-11-22", "20201122", 45),
        ("1910-01-01", "20200101", 90),
        ("1975-11-22", "19700101", None),
        ("1975-11-22", "", None),
        ("1975-11-22", "2020", None),
    ],
)
def test_age_is_in_whole_years_at_the_study_and_shared_from_ninety_on(
    born: str, study: str, age: int | None
) -> None:
    profile = load_profile()
    (entry,) = read_export(HEADER + f"1,A1,1,F,{born},,,\n".encode(), profile)
    assert values_at(entry, profile, study)["age_years"] == age


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"1,A1,2,F,1975-11-22,39.2,28.2,yes", "pneumonia"),
        (b"1,A1,0.5,F,1975-11-22,39.2,28.2,yes", "pneumonia"),
        (b"1,A1,1,female,1975-11-22,39.2,28.2,yes", "sex"),
        (b"1,A1,1,F,22-11-1975,39.2,28.2,yes", "birth_date"),
        (b"1,A1,1,F,1975-11-22,392,28.2,yes", "temperature_c"),
        (b"1,A1,1,F,1975-11-22,nan,28.2,yes", "temperature_c"),
        (b"1,A1,1,F,1975-11-22,39.2,inf,yes", "crp_mg_l"),
        (b"1,A1,1,F,1975-11-22,39.2,28.2,ja", "smoker"),
        (b",A1,1,F,1975-11-22,39.2,28.2,yes", "patient_id"),
        (b"1,,1,F,1975-11-22,39.2,28.2,yes", "accession"),
    ],
)
def test_a_wrong_value_refuses_the_file(row: bytes, column: str) -> None:
    with pytest.raises(CsvError) as caught:
        read_export(HEADER + b"7,A7,0,M,1980-01-01,,,\n" + row + b"\n", load_profile())
    assert (caught.value.line, caught.value.column) == (3, column)


def test_a_study_that_stands_twice_refuses_the_file() -> None:
    with pytest.raises(CsvError, match="stands twice"):
        read_export(HEADER + GOOD + GOOD, load_profile())


@pytest.mark.parametrize("name", ["unknown-1", "../profiles/thorax-1", ""])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(NotFoundError):
        load_profile(name)
