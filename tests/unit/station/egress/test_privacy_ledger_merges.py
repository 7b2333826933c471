"""What was charged under any name of a patient stays charged, in whatever order a PACS merges names."""

from dataclasses import replace
from pathlib import Path

import pytest
from catalogue_log import Intake, patient
from egress_documents import ORDER
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from station.audit import AuditLog
from station.catalogue import Catalogue
from station.egress.privacy.ledger import PrivacyCharge, PrivacyLedger
from station.storage import open_database

NAMES = range(4)
CHARGE = PrivacyCharge(ORDER, 1, "train", "study", 1, ("loss",), 1, 1 << 40, frozenset())
MERGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=6)


class Station:
    """A catalogue and a ledger over one database."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(folder / "station.db")
        self.intake = Intake(folder / "handover")
        self.catalogue = Catalogue(self.database, self.intake.folder, self.intake.key.public_key())
        self.ledger = PrivacyLedger(self.database, AuditLog(self.database), lambda: 1 << 40)

    def merge(self, number: int, into: int) -> None:
        self.intake.merged(number, into=into)
        self.catalogue.sync()

    def charge(self, number: int, cost: int) -> None:
        assert self.ledger.charge(replace(CHARGE, cost=cost, patients=frozenset({patient(number)}))) is None

    def is_charged(self, number: int, least: int) -> bool:
        """Whether one who is granted less than that is short."""
        return self.ledger.shortage("study", least - 1, 0, {patient(number)}).of_policy == 1


@given(merges=MERGES)
@example(merges=[(0, 1), (2, 0)])
@example(merges=[(0, 1), (0, 2)])
@example(merges=[(0, 1), (1, 0), (2, 1)])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_merges_forgets_what_was_charged(
    tmp_path_factory: pytest.TempPathFactory, merges: list[tuple[int, int]]
) -> None:
    station = Station(tmp_path_factory.mktemp("merges"))
    one = {number: {number} for number in NAMES}
    for number in NAMES:
        station.charge(number, 10**number)
    for step, (number, into) in enumerate(merges):
        station.merge(number, into)
        together = one[number] | one[into]
        one |= dict.fromkeys(together, together)
        station.charge(into, 10**5)
        for name in NAMES:
            later = sum(10**5 for _, charged in merges[: step + 1] if charged in one[name])
            assert station.is_charged(name, sum(10**other for other in one[name]) + later), (name, merges)
    station.database.close()


def test_a_merge_into_a_name_that_is_another_s_is_one_into_the_other(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.charge(0, 7)
    station.merge(0, into=1)
    station.merge(2, into=0)
    assert station.is_charged(1, 7)
    assert station.is_charged(2, 7)
    station.database.close()
