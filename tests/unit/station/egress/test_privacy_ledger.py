"""The ledger of what noisy releases cost each patient."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from egress_documents import ORDER
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from policies.refusals import RefusalCode, Refused
from station.audit import AuditLog
from station.audit.events import AuditEvent
from station.egress.privacy.ledger import PRIVACY_LOST_COUNTER, PrivacyCharge, PrivacyLedger, privacy_spent_in
from station.storage import Database, open_database

EVERYBODY = frozenset(f"p{number}" for number in range(5))
CHARGE = PrivacyCharge(ORDER, 1, "train", "study", 1, ("loss", "tensors"), 10, 100, EVERYBODY)


class Books:
    """A database with its ledger; the hospital grants 250."""

    def __init__(self, folder: Path) -> None:
        self.database: Database = open_database(folder / "station.db")
        self.audit = AuditLog(self.database)
        self.ledger = PrivacyLedger(self.database, self.audit, lambda: 250)

    def run(self, statement: str) -> None:
        with self.database.write() as session:
            session.execute(text(statement))

    def spent(self, policy_id: str, patient: str) -> int:
        with self.database.read() as session:
            found = session.execute(
                text("SELECT spent FROM privacy_spent WHERE policy_id = :p AND patient = :q"),
                {"p": policy_id, "q": patient},
            ).scalar()
        return int(found or 0)

    def charged(self, charge: PrivacyCharge) -> int:
        """Charge until refused; return how often it went well."""
        times = 0
        while self.ledger.charge(charge) is None:
            times += 1
        return times


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.database.close()


def test_everybody_is_charged_and_it_is_on_record(books: Books) -> None:
    assert books.ledger.charge(CHARGE) is None
    assert {books.spent("study", patient) for patient in EVERYBODY} == {10}
    [draw] = books.ledger.draws(ORDER)
    assert (draw.cost, draw.patients, json.loads(draw.outputs)) == (10, 5, ["loss", "tensors"])
    event = books.audit.events()[-1].record
    assert event.event is AuditEvent.PRIVACY_CHARGED
    assert event.numbers == {"round": 1, "queries": 2, "cost": 10, "patients": 5}


def test_what_a_policy_grants_is_spent_to_the_last_and_no_further(books: Books) -> None:
    assert books.charged(CHARGE) == 10
    assert {books.spent("study", patient) for patient in EVERYBODY} == {100}
    refused = books.ledger.charge(replace(CHARGE, cost=1, policy_version=2))
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.BUDGET_PRIVACY
    assert books.audit.events()[-1].record.event is AuditEvent.PRIVACY_REFUSED


def test_one_patient_who_has_nothing_left_keeps_all_from_being_charged(books: Books) -> None:
    assert books.charged(replace(CHARGE, patients=frozenset({"p0"}))) == 10
    refused = books.ledger.charge(CHARGE)
    assert isinstance(refused, Refused)
    assert "of 5 patients 1 have less left" in refused.reasons[0].detail
    assert {books.spent("study", patient) for patient in EVERYBODY - {"p0"}} == {0}
    assert len(books.ledger.draws()) == 10


def test_the_hospitals_budget_is_over_all_policies(books: Books) -> None:
    studies = [replace(CHARGE, policy_id=name) for name in ("a", "b", "c", "d")]
    assert [books.charged(study) for study in studies] == [10, 10, 5, 0]
    short = books.ledger.shortage("d", 100, 10, EVERYBODY)
    assert (short.of_policy, short.of_hospital, short.patients) == (0, 5, 5)


def test_whom_another_was_merged_into_brings_both_charges_along(books: Books) -> None:
    for name in ("p0", "old"):
        assert books.ledger.charge(replace(CHARGE, cost=20, patients=frozenset({name}))) is None
    books.run("INSERT INTO catalogue_merged VALUES ('old', 'p0')")
    # Two charges of 20 that may have been for one answer: a group of two, so twice their sum.
    assert not books.ledger.shortage("study", 100, 10, {"p0"})
    assert books.ledger.shortage("study", 100, 11, {"p0"}).of_policy == 1
    # And one under whose new name nothing was charged yet.
    books.run("INSERT INTO catalogue_merged VALUES ('p0', 'new')")
    assert books.ledger.shortage("study", 100, 60, {"new"}).of_policy == 1


def test_what_was_lost_with_the_records_counts_for_everybody(books: Books) -> None:
    books.run("INSERT INTO counters VALUES ('privacy-lost', 'study', 95)")
    assert PRIVACY_LOST_COUNTER == "privacy-lost"
    assert isinstance(books.ledger.charge(CHARGE), Refused)
    other = replace(CHARGE, policy_id="other")
    assert books.ledger.charge(other) is None
    assert books.ledger.shortage("other", 1000, 146, EVERYBODY).of_hospital == 5
    assert not books.ledger.shortage("other", 1000, 145, EVERYBODY)


@pytest.mark.parametrize(
    "change",
    [{"patients": frozenset()}, {"cost": 0}, {"cost": -5}, {"outputs": ()}],
    ids=["nobody", "free", "paid back", "nothing"],
)
def test_noise_that_would_cost_nobody_anything_is_not_drawn(books: Books, change: dict[str, object]) -> None:
    refused = books.ledger.charge(replace(CHARGE, **change))  # type: ignore[arg-type]
    assert isinstance(refused, Refused)
    assert books.ledger.draws() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE privacy_spent SET spent = spent - 1",
        "UPDATE privacy_spent SET patient = 'x' WHERE patient = 'p0'",
        "UPDATE privacy_patients SET spent = 0",
        "DELETE FROM privacy_spent WHERE patient = 'p0'",
        "DELETE FROM privacy_patients",
        "DELETE FROM privacy_draws",
        "UPDATE privacy_draws SET cost = 0",
        "UPDATE counters SET value = 0",
    ],
)
def test_what_was_charged_only_grows(books: Books, statement: str) -> None:
    assert books.ledger.charge(CHARGE) is None
    with pytest.raises(IntegrityError):
        books.run(statement)


def test_charges_outlive_the_process(books: Books, tmp_path: Path) -> None:
    assert books.charged(CHARGE) == 10
    books.database.close()
    later = Books(tmp_path)
    assert isinstance(later.ledger.charge(CHARGE), Refused)
    with later.database.read() as session:
        assert privacy_spent_in(session, "study") == 100
    later.database.close()
