"""The consent register as CSV: read strictly, whole or not at all.

    patient_id,decision,purpose,date            must be there
    issuer,valid_from,valid_until,given_by      may be
    birth_date,deceased                         may be; also in a file of their own

A consent names its purpose: a word about everything at once is no consent to anything (GDPR art. 4(11): specific). An objection or a
`none` without purpose is about all of them. Pure: bytes in, decisions out; an error names line and column, never a value.
"""

from datetime import date

from station.intake.consent.decisions import (
    WORDS,
    Decision,
    GivenBy,
    PatientFacts,
    PatientId,
    Purpose,
    Register,
)
from station.intake.csv_reader import CsvError, CsvRow, read_csv

COLUMNS = ("patient_id", "decision", "purpose", "date")
OPTIONAL_COLUMNS = ("issuer", "valid_from", "valid_until", "given_by", "birth_date", "deceased")
FACT_COLUMNS = ("patient_id", "birth_date", "deceased")
MAX_ID_CHARACTERS = 64
_EARLIEST = date(1850, 1, 1)


def read_register(data: bytes, *, file: str = "consent.csv") -> Register:
    """Read a whole register.

    Raises:
        CsvError: a column is missing, a word, purpose or date wrong, two rows disagree on a birth date, or no row is there:
            an empty register would withdraw every consent, which a mistake must not do.
    """
    # In the order of the file, each once.
    decisions: dict[Decision, None] = {}
    facts: dict[PatientId, PatientFacts] = {}
    for row in read_csv(data, COLUMNS, file=file, optional=OPTIONAL_COLUMNS):
        patient = _patient(row)
        known = _facts(row, facts.get(patient, PatientFacts()))
        if known != PatientFacts():
            facts[patient] = known
        decisions.update(dict.fromkeys(_decisions(row, patient, known)))
    if not decisions:
        raise CsvError(file, 1, None, "the register is empty")
    return Register(tuple(decisions), facts)


def read_patient_facts(data: bytes, *, file: str = "patients.csv") -> dict[PatientId, PatientFacts]:
    """Read birth dates and deaths from a file of their own.

    Raises:
        CsvError: naming line and column.
    """
    facts: dict[PatientId, PatientFacts] = {}
    for row in read_csv(data, FACT_COLUMNS, file=file, optional=("issuer",)):
        patient = _patient(row)
        facts[patient] = _facts(row, facts.get(patient, PatientFacts()))
    if not facts:
        raise CsvError(file, 1, None, "the file is empty")
    return facts


def _patient(row: CsvRow) -> PatientId:
    patient_id, issuer = row.required("patient_id"), row.values["issuer"]
    for column, value in (("patient_id", patient_id), ("issuer", issuer)):
        if len(value) > MAX_ID_CHARACTERS:
            raise row.error(column, f"is over {MAX_ID_CHARACTERS} characters")
    return PatientId(issuer, patient_id)


def _decisions(row: CsvRow, patient: PatientId, facts: PatientFacts) -> list[Decision]:
    word = WORDS.get(row.required("decision"))
    if word is None:
        raise row.error("decision", f"is not one of {', '.join(WORDS)}")
    row.required("date")
    made = _day(row, "date")
    valid_from, valid_until = _day(row, "valid_from"), _day(row, "valid_until")
    if made is None:
        raise row.error("date", "is empty")
    if word == "objection" and valid_until is not None:
        raise row.error(
            "valid_until", "stands with an objection, which has no end: it stands until a consent"
        )
    if valid_until is not None and valid_until < max(made, valid_from or made):
        raise row.error("valid_until", "lies before the decision begins")
    if facts.birth_date is not None and made < facts.birth_date:
        raise row.error("date", "lies before the birth date")
    given_by = _given_by(row)
    return [
        Decision(patient, purpose, word, made, given_by, valid_from, valid_until)
        for purpose in _purposes(row, word)
    ]


def _purposes(row: CsvRow, word: str) -> tuple[Purpose, ...]:
    text = row.values["purpose"]
    if text:
        try:
            return (Purpose(text),)
        except ValueError:
            raise row.error("purpose", f"is not one of {', '.join(Purpose)}") from None
    if word == "consent":
        raise row.error("purpose", "is empty: a consent names its purpose")
    return tuple(Purpose)


def _given_by(row: CsvRow) -> GivenBy:
    try:
        return GivenBy(row.values["given_by"] or GivenBy.PATIENT)
    except ValueError:
        raise row.error("given_by", f"is not one of {', '.join(GivenBy)}") from None


def _facts(row: CsvRow, known: PatientFacts) -> PatientFacts:
    birth_date, deceased = _day(row, "birth_date"), _day(row, "deceased")
    for column, stated, before in (
        ("birth_date", birth_date, known.birth_date),
        ("deceased", deceased, known.deceased),
    ):
        if stated is not None and before is not None and stated != before:
            raise row.error(column, "is another than in a row before")
    facts = PatientFacts(birth_date or known.birth_date, deceased or known.deceased)
    if facts.birth_date and facts.deceased and facts.deceased < facts.birth_date:
        raise row.error("deceased", "lies before the birth date")
    return facts


def _day(row: CsvRow, column: str) -> date | None:
    text = row.day(column)
    if text is None:
        return None
    day = date.fromisoformat(text)
    if day < _EARLIEST:
        raise row.error(column, f"lies before {_EARLIEST.year}")
    return day
