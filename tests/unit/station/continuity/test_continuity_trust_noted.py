"""Which state of the board's repository counts is on record before anything is decided by it."""

from pathlib import Path

import pytest
from continuity_kit import WitnessedStation
from station_kit import POLICY, broken_disk

from policies.errors import StorageError
from policies.refusals import Permitted


def targets_that_count(kit: WitnessedStation, *, fresh: bool) -> int:
    found = kit.gatekeeper.policy_set(fresh=fresh)
    assert isinstance(found, Permitted), found
    return found.value.state.targets_version


def test_a_new_state_is_on_record_when_it_counts_and_counts_only_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = WitnessedStation.witnessed(tmp_path)
    try:
        before = targets_that_count(kit, fresh=True)
        noted = kit.events().count("trust-refreshed")
        kit.board.publish(kit.board.signed(kit.board.policy(2, POLICY)))
        assert targets_that_count(kit, fresh=True) == before + 1
        assert kit.events().count("trust-refreshed") == noted + 1

        kit.board.publish(kit.board.signed(kit.board.policy(3, POLICY)))
        with monkeypatch.context() as full:
            full.setattr(kit.audit, "append_in", broken_disk)
            with pytest.raises(StorageError):
                kit.gatekeeper.policy_set(fresh=True)
            assert targets_that_count(kit, fresh=False) == before + 1
        assert targets_that_count(kit, fresh=True) == before + 2
    finally:
        kit.close()
