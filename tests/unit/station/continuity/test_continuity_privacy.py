"""What noise cost is stated, and a station that was restored from a backup charges what it does not know of to everybody."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from continuity_kit import WitnessedStation

from policies.refusals import RefusalCode, Refused
from station.egress.privacy.ledger import PrivacyCharge, PrivacyLedger, privacy_spent_in

PATIENTS = frozenset({"a", "b"})
NEWCOMER = frozenset({"c"})


@pytest.fixture
def station(tmp_path: Path) -> Iterator[WitnessedStation]:
    made = WitnessedStation.witnessed(tmp_path / "station-home")
    yield made
    made.close()


def draw(
    kit: WitnessedStation, policy: str, cost: int, patients: frozenset[str] = PATIENTS
) -> Refused | None:
    ledger = PrivacyLedger(kit.database, kit.audit, lambda: 1000)
    return ledger.charge(
        PrivacyCharge("sha256:" + "5" * 64, 1, "train", policy, 1, ("tensors",), cost, 100, patients)
    )


def restored(kit: WitnessedStation, tmp_path: Path) -> None:
    """Thirty are charged, a backup, forty more of one policy and fifty of another, and the backup in place again."""
    assert draw(kit, "study", 30) is None
    kit.stated()
    kit.vouch()
    backup = kit.back_up(tmp_path / "backup")
    assert draw(kit, "study", 40) is None
    assert draw(kit, "later", 50) is None
    uses = {use.policy_id: use.privacy for use in kit.stated().policies}
    assert uses == {"study": 70, "later": 50}
    kit.vouch()
    kit.restore(backup)


def test_a_backup_from_before_a_draw_is_seen(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    reason = station.records.reason()
    assert reason is not None
    assert reason.code is RefusalCode.STATION_RESTORED


def test_what_is_lost_is_charged_to_everybody_for_good(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    plan = station.reconcile()
    assert {lack.policy: lack.privacy_lost for lack in plan.lacks} == {"study": 40, "later": 50}
    with station.database.read() as session:
        assert privacy_spent_in(session, "study") == 70
        assert privacy_spent_in(session, "later") == 50
    # 30 on record and 40 lost of 100; who came since was perhaps there too.
    assert isinstance(draw(station, "study", 31), Refused)
    assert draw(station, "study", 30) is None
    assert isinstance(draw(station, "study", 61, NEWCOMER), Refused)
    assert draw(station, "study", 60, NEWCOMER) is None
    assert isinstance(draw(station, "later", 51), Refused)
    # The hospital's thousand: 60 on record, 90 lost.
    ledger = PrivacyLedger(station.database, station.audit, lambda: 1000)
    assert ledger.shortage("other", 10_000, 851, PATIENTS).of_hospital == 2
    assert not ledger.shortage("other", 10_000, 850, PATIENTS)


def test_a_second_restore_charges_only_what_it_lost(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    station.reconcile()
    station.import_consent()
    assert {use.policy_id: use.privacy for use in station.stated().policies} == {"study": 70, "later": 50}
    assert station.registrar.refused == []
    station.vouch()
    station.restore(tmp_path / "backup")
    assert {lack.policy: lack.privacy_lost for lack in station.reconcile().lacks} == {
        "study": 40,
        "later": 50,
    }
    assert isinstance(draw(station, "study", 31), Refused)
    assert draw(station, "study", 30) is None
