"""The consent register as a file, and what it comes to by pseudonym."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.handover import ConsentRecord
from station.intake.consent.decisions import (
    Decision,
    GivenBy,
    PatientFacts,
    PatientId,
    Purpose,
    Register,
)
from station.intake.consent.effective import Ground
from station.intake.consent.register_file import read_patient_facts, read_register
from station.intake.consent.resolution import Bearer, Resolved, Standing, resolve
from station.intake.csv_reader import CsvError

SHARED_DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
HEADER = b"patient_id,decision,purpose,date\n"
FULL = b"patient_id,issuer,decision,purpose,date,valid_from,valid_until,given_by,birth_date,deceased\n"
PARTICIPANTS = "research-participants"
ONE = Bearer("P" + "A" * 20, "Amstelrijk", "1")
TWO = Bearer("P" + "B" * 20, "De Wadden", "1")
TODAY = date(2026, 11, 22)


def resolved(
    register: Register, *bearers: Bearer, today: date = TODAY, registry_apart: bool = False
) -> Resolved:
    standing = Standing.of(register.decisions, register.facts, registry_apart=registry_apart)
    return resolve(standing, bearers or (ONE,), today)


def words(
    rows: bytes, *bearers: Bearer, header: bytes = HEADER, registry_apart: bool = False
) -> dict[tuple[str, str], str]:
    found = resolved(read_register(header + rows), *bearers, registry_apart=registry_apart)
    return {(record.patient, record.purpose): record.decision for record in found.records}


def test_a_register_in_its_shortest_form() -> None:
    rows = b"1,consent,research-participants,2020-11-05\n2,objection,research-commercial,2020-11-06\n"
    assert read_register(HEADER + rows).decisions == (
        Decision(PatientId("", "1"), Purpose.RESEARCH_PARTICIPANTS, "consent", date(2020, 11, 5)),
        Decision(PatientId("", "2"), Purpose.RESEARCH_COMMERCIAL, "objection", date(2020, 11, 6)),
    )


def test_a_register_with_everything() -> None:
    row = b"1,Amstelrijk,consent,registry,2020-11-05,2021-01-01,2030-12-31,parent,2015-02-03,2026-01-01\n"
    register = read_register(FULL + row)
    patient = PatientId("Amstelrijk", "1")
    assert register.decisions == (
        Decision(
            patient, Purpose.REGISTRY, "consent", date(2020, 11, 5), GivenBy.PARENT,
            date(2021, 1, 1), date(2030, 12, 31),
        ),
    )  # fmt: skip
    assert register.facts == {patient: PatientFacts(date(2015, 2, 3), date(2026, 1, 1))}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"1,yes,research-participants,2020-11-05", "decision"),
        (b"1,Consent,research-participants,2020-11-05", "decision"),
        (b"1,,research-participants,2020-11-05", "decision"),
        (b"1,consent,anything,2020-11-05", "purpose"),
        (b"1,consent,,2020-11-05", "purpose"),
        (b"1,consent,research-participants,05-11-2020", "date"),
        (b"1,consent,research-participants,", "date"),
        (b"1,consent,research-participants,0020-11-05", "date"),
        (b",consent,research-participants,2020-11-05", "patient_id"),
        (b"1" * 65 + b",consent,research-participants,2020-11-05", "patient_id"),
    ],
)
def test_a_wrong_row_refuses_the_file(row: bytes, column: str) -> None:
    with pytest.raises(CsvError) as caught:
        read_register(HEADER + b"7,consent,research-participants,2020-11-05\n" + row + b"\n")
    assert (caught.value.line, caught.value.column) == (3, column)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"1,,objection,,2020-11-05,,2021-01-01,,,", "valid_until"),
        (b"1,,consent,registry,2020-11-05,,2020-11-04,,,", "valid_until"),
        (b"1,,consent,registry,2020-11-05,2021-01-01,2020-12-31,,,", "valid_until"),
        (b"1,,consent,registry,2020-11-05,,,mother,,", "given_by"),
        (b"2,,consent,registry,2020-11-05,,,,2020-11-06,", "date"),
        (b"1,,consent,registry,2020-11-05,,,,2001-01-02,", "birth_date"),
        (b"1,,consent,registry,2020-11-05,,,,,2000-12-31", "deceased"),
        (b"1,,consent,registry,2020-11-05,tomorrow,,,,", "valid_from"),
    ],
)
def test_a_wrong_row_of_the_full_form_refuses_the_file(row: bytes, column: str) -> None:
    first = b"1,,consent,registry,2020-11-05,,,,2001-01-01,\n"
    with pytest.raises(CsvError) as caught:
        read_register(FULL + first + row + b"\n")
    assert (caught.value.line, caught.value.column) == (3, column)
    assert not [word for word in ("2020", "mother", "2001", "tomorrow") if word in str(caught.value)]


def test_an_empty_register_withdraws_nobody() -> None:
    with pytest.raises(CsvError, match="empty"):
        read_register(HEADER)


def test_births_and_deaths_may_come_in_a_file_of_their_own() -> None:
    data = b"patient_id,issuer,birth_date,deceased\n1,A,2001-01-01,\n2,,,2020-02-02\n"
    assert read_patient_facts(data) == {
        PatientId("A", "1"): PatientFacts(date(2001, 1, 1)),
        PatientId("", "2"): PatientFacts(None, date(2020, 2, 2)),
    }
    with pytest.raises(CsvError) as caught:
        read_patient_facts(data + b"1,A,2001-01-02,\n")
    assert (caught.value.line, caught.value.column) == (4, "birth_date")


@given(
    st.permutations(["consent,2018-01-01", "objection,2019-01-01", "consent,2019-01-01", "none,2022-01-01"])
)
def test_of_several_entries_in_a_file_the_objection_wins(rows: list[str]) -> None:
    lines = [f"1,{row.split(',')[0]},{PARTICIPANTS},{row.split(',')[1]}" for row in rows]
    assert words("\n".join(lines).encode()) == {(ONE.pseudonym, PARTICIPANTS): "objection"}


def test_an_objection_without_purpose_is_about_everything() -> None:
    rows = b"1,objection,,2021-01-01\n1,consent,research-participants,2020-01-01\n"
    assert words(rows) == {
        (ONE.pseudonym, "research-participants"): "objection",
        (ONE.pseudonym, "research-third-parties"): "objection",
        (ONE.pseudonym, "research-commercial"): "objection",
    }


def test_an_objection_to_the_registry_is_an_objection_to_all_research() -> None:
    rows = b"1,objection,registry,2020-01-01\n1,consent,research-participants,2026-01-01\n"
    assert set(words(rows).values()) == {"objection"}
    assert len(words(rows)) == 3


def test_research_rests_on_the_supply_to_the_registry() -> None:
    research = b"1,consent,research-participants,2020-01-01\n"
    assert set(words(research).values()) == {"consent"}, "asked together: the one includes the other"
    assert set(words(research, registry_apart=True).values()) == {"none"}
    assert set(words(research + b"1,none,registry,2020-01-01\n").values()) == {"none"}
    both = research + b"1,consent,registry,2020-01-01\n"
    assert set(words(both, registry_apart=True).values()) == {"consent"}
    assert words(b"1,consent,registry,2020-01-01\n") == {}, "the registry alone is no research"


def test_only_patients_whose_images_are_here_are_handed_over() -> None:
    rows = b"1,consent,research-participants,2020-11-05\n9,consent,research-participants,2020-11-05\n"
    found = resolved(read_register(HEADER + rows))
    assert found.records == (
        ConsentRecord(patient=ONE.pseudonym, purpose=PARTICIPANTS, decision="consent", date="2020-11-05"),
    )
    assert found.ambiguous == 0
    assert found.grounds == {Ground.STATED: 1}


def test_an_id_that_two_issuers_gave_out_is_nobodys_consent_and_everybodys_objection() -> None:
    consent, objection = b"1,consent,research-participants,2020-11-05\n", b"1,objection,,2020-11-05\n"
    assert words(consent, ONE, TWO) == {}
    assert {patient for patient, _ in words(objection, ONE, TWO)} == {ONE.pseudonym, TWO.pseudonym}
    assert resolved(read_register(HEADER + consent), ONE, TWO).ambiguous == 1


def test_a_decision_that_names_its_issuer_is_that_issuers_patients() -> None:
    header = b"issuer," + HEADER
    rows = b"Amstelrijk,1,consent,research-participants,2020-11-05\nDe Wadden,1,objection,,2020-11-05\n"
    found = words(rows, ONE, TWO, header=header)
    assert found.pop((ONE.pseudonym, PARTICIPANTS)) == "consent"
    assert {patient for patient, _ in found} == {TWO.pseudonym}
    unknown = Bearer("P" + "C" * 20, "", "1")
    assert set(words(rows, unknown, header=header).values()) == {"objection"}, "in doubt the objection counts"


def test_who_is_known_under_two_ids_is_one_patient() -> None:
    merged = Bearer(ONE.pseudonym, "Amstelrijk", "2")
    rows = b"1,consent,research-participants,2020-11-05\n2,objection,research-participants,2020-11-05\n"
    assert words(rows, ONE, merged) == {(ONE.pseudonym, PARTICIPANTS): "objection"}
    assert words(rows, merged, ONE) == {(ONE.pseudonym, PARTICIPANTS): "objection"}
    later = rows.replace(
        b"1,consent,research-participants,2020-11-05", b"1,consent,research-participants,2021-01-01"
    )
    assert words(later, ONE, merged) == {(ONE.pseudonym, PARTICIPANTS): "consent"}
    assert resolved(read_register(HEADER + rows), ONE, merged).ambiguous == 0


def test_in_doubt_about_the_issuer_a_patient_is_as_young_as_they_may_be() -> None:
    header = b"patient_id,issuer,decision,purpose,date,birth_date\n"
    rows = (
        b"1,,consent,research-participants,2020-11-05,2010-01-01\n"
        b"1,Amstelrijk,consent,research-participants,2020-11-05,\n"
    )
    assert words(rows, ONE, TWO, header=header) == {(ONE.pseudonym, PARTICIPANTS): "none"}


@pytest.mark.parametrize("hospital", ["hospital-a", "hospital-b", "hospital-c"])
def test_the_registers_of_the_shared_hospitals(hospital: str) -> None:
    file = SHARED_DATA / "cxr" / hospital / "consent.csv"
    if not file.is_file():
        pytest.skip("the shared data are not here")
    register = read_register(file.read_bytes())
    assert len(register.decisions) > 10
    bearers = [
        Bearer(f"P{chr(65 + number // 26) * 10}{chr(65 + number % 26) * 10}", "", one.patient.patient_id)
        for number, one in enumerate(register.decisions)
    ]
    found = resolved(register, *bearers)
    stated = {(one.patient.patient_id, one.purpose.value): one.word for one in register.decisions}
    told = {bearer.pseudonym: bearer.patient_id for bearer in bearers}
    assert {(told[r.patient], r.purpose): r.decision for r in found.records} == stated
