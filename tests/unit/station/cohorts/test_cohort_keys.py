"""Splits and the train's pseudonyms."""

from pathlib import Path

import pytest
from cohort_files import KEY
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import SettingsError, StorageError
from policies.splits import Split
from station.cohorts import CohortKey


def test_splits_come_in_the_documented_shares() -> None:
    found = [KEY.split_of(f"P{number}") for number in range(8000)]
    assert found.count(Split.TRAINING) / 8000 == pytest.approx(0.50, abs=0.03)
    assert found.count(Split.VALIDATION) / 8000 == pytest.approx(0.25, abs=0.03)
    assert found.count(Split.TESTING) / 8000 == pytest.approx(0.25, abs=0.03)


@given(patient=st.text(), scope=st.text(), other=st.text())
def test_a_patient_keeps_the_split_and_changes_the_name_over_trains(
    patient: str, scope: str, other: str
) -> None:
    assert KEY.split_of(patient) is CohortKey(bytes(range(32))).split_of(patient)
    assert (KEY.patient_id(scope, patient) == KEY.patient_id(other, patient)) is (scope == other)
    assert KEY.patient_id(scope, patient)[1:] != KEY.case_id(scope, patient)[1:]


def test_another_key_deals_otherwise() -> None:
    other = CohortKey(bytes(32))
    patients = [f"P{number}" for number in range(200)]
    assert [KEY.split_of(p) for p in patients] != [other.split_of(p) for p in patients]
    assert not {KEY.patient_id("s", p) for p in patients} & {other.patient_id("s", p) for p in patients}


def test_a_key_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "cohort.key"
    written = CohortKey.generate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert CohortKey.load(path).patient_id("s", "p") == written.patient_id("s", "p")
    with pytest.raises(StorageError, match="not overwritten"):
        CohortKey.generate(path)


def test_a_missing_short_or_shared_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.key"
    with pytest.raises(SettingsError, match="cannot be read"):
        CohortKey.load(path)
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="32 bytes"):
        CohortKey.load(path)
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read it"):
        CohortKey.load(path)
    link = tmp_path / "link.key"
    link.symlink_to(path)
    with pytest.raises(SettingsError):
        CohortKey.load(link)


def test_the_key_does_not_show_itself() -> None:
    assert repr(KEY) == "CohortKey(...)"
