import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.intake.consent.register_file import Entry, Patient, merge, read_register, resolve
from station.intake.csv_reader import CsvError

PURPOSE = "research-participants"
HEADER = b"patient_id,decision,purpose,date\n"
ONE = Patient("P" + "A" * 20, "Amstelrijk", "1")
TWO = Patient("P" + "B" * 20, "De Wadden", "1")


def entry(decision: str, date: str = "2020-11-05", patient: str = "1") -> Entry:
    return Entry(patient, PURPOSE, decision, date)  # type: ignore[arg-type]


def decisions(entries: list[Entry]) -> dict[str, str]:
    return {made.patient_id: made.decision for made in entries}


def test_a_register_is_read() -> None:
    data = (
        HEADER + b"1,consent,research-participants,2020-11-05\n2,objection,research-commercial,2020-11-06\n"
    )
    assert read_register(data) == [
        Entry("1", "research-participants", "consent", "2020-11-05"),
        Entry("2", "research-commercial", "objection", "2020-11-06"),
    ]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (b"1,yes,research-participants,2020-11-05", "decision"),
        (b"1,Consent,research-participants,2020-11-05", "decision"),
        (b"1,,research-participants,2020-11-05", "decision"),
        (b"1,consent,anything,2020-11-05", "purpose"),
        (b"1,consent,research-participants,05-11-2020", "date"),
        (b"1,consent,research-participants,", "date"),
        (b",consent,research-participants,2020-11-05", "patient_id"),
    ],
)
def test_a_wrong_row_refuses_the_file(row: bytes, column: str) -> None:
    with pytest.raises(CsvError) as caught:
        read_register(HEADER + b"7,consent,research-participants,2020-11-05\n" + row + b"\n")
    assert (caught.value.line, caught.value.column) == (3, column)


def test_an_empty_register_withdraws_nobody() -> None:
    with pytest.raises(CsvError, match="empty"):
        read_register(HEADER)


@given(
    st.permutations(["consent,2020-01-01", "objection,2019-01-01", "consent,2021-01-01", "none,2022-01-01"])
)
def test_of_several_entries_in_a_file_the_objection_wins(rows: list[str]) -> None:
    lines = [f"1,{row.split(',')[0]},{PURPOSE},{row.split(',')[1]}" for row in rows]
    assert decisions(read_register(HEADER + "\n".join(lines).encode())) == {"1": "objection"}


@pytest.mark.parametrize(
    ("standing", "read", "expected"),
    [
        ([entry("objection")], [entry("consent", patient="2")], {"1": "objection", "2": "consent"}),
        ([entry("objection", "2020-01-01")], [entry("consent", "2021-01-01")], {"1": "consent"}),
        ([entry("objection", "2020-01-01")], [entry("consent", "2019-01-01")], {"1": "objection"}),
        ([entry("objection", "2020-01-01")], [entry("consent", "2020-01-01")], {"1": "objection"}),
        ([entry("consent")], [entry("consent", patient="2")], {"2": "consent"}),
        ([entry("consent")], [entry("objection")], {"1": "objection"}),
        ([entry("consent")], [entry("none")], {"1": "none"}),
    ],
)
def test_a_new_register_replaces_the_state_but_forgets_no_objection(
    standing: list[Entry], read: list[Entry], expected: dict[str, str]
) -> None:
    assert decisions(merge(standing, read)) == expected


def test_only_patients_whose_images_are_here_are_handed_over() -> None:
    records, ambiguous = resolve([entry("consent"), entry("consent", patient="9")], [ONE])
    assert [(record.patient, record.decision) for record in records] == [(ONE.pseudonym, "consent")]
    assert ambiguous == 0


def test_an_id_that_two_issuers_gave_out_is_nobodys_consent_and_everybodys_objection() -> None:
    records, ambiguous = resolve([entry("consent")], [ONE, TWO])
    assert records == []
    assert ambiguous == 1
    records, _ = resolve([entry("objection")], [ONE, TWO])
    assert {record.patient for record in records} == {ONE.pseudonym, TWO.pseudonym}
