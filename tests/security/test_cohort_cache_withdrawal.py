"""A patient who withdraws, or whose images are deleted at the source, is gone from the volume cache at the next look."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake
from cohort_files import KEY
from ct_files import CT_DEFINITION, hand_over

from policies.policy import ConsentMode
from policies.refusals import Refused
from station.audit.log import AuditLog
from station.catalogue import Catalogue
from station.cohorts import FrozenCohort, VolumeCache, freeze
from station.handover import Removal, RemovedContent
from station.runs.volumes import VolumeKeeper
from station.storage import open_database

OFFERED = {COLLECTION: ConsentMode.OPT_IN}
PATIENTS = (1, 2, 3, 4)


class Station:
    """Compute's parts that a withdrawal passes through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.intake = Intake(folder / "handover")
        self.files = {number: hand_over(self.intake, folder, number) for number in PATIENTS}
        self.intake.consent(**{f"p{number}": "consent" for number in PATIENTS})
        database = open_database(folder / "station.db")
        self.catalogue = Catalogue(database, self.intake.folder, self.intake.key.public_key())
        self.cache = VolumeCache(folder / "volumes")
        self.audit = AuditLog(database)
        self.moment = NOW
        self.keeper = VolumeKeeper(
            self.cache,
            self.catalogue,
            self.audit,
            modes=OFFERED,
            keep_for=timedelta(days=90),
            clock=lambda: self.moment,
        )

    def freeze(self) -> FrozenCohort:
        self.catalogue.sync()
        cases = self.catalogue.cases(CT_DEFINITION, OFFERED, timedelta(days=7), NOW)
        assert not isinstance(cases, Refused)
        cohort = freeze(
            CT_DEFINITION.model_copy(update={"label": None, "clinical_fields": ()}),
            cases,
            self.folder / "cohorts",
            KEY,
            cache=self.cache,
        )
        assert isinstance(cohort, FrozenCohort)
        return cohort

    def look(self) -> int:
        self.catalogue.sync()
        return self.keeper.look()

    def cached(self) -> set[int]:
        sources = self.cache.sources()
        return {number for number, files in self.files.items() if set(files) <= sources}


@pytest.fixture
def station(tmp_path: Path) -> Station:
    station = Station(tmp_path)
    station.freeze()
    assert len(station.cached()) > 1
    return station


def test_a_withdrawal_takes_the_patients_volumes_out_and_no_others(station: Station) -> None:
    before = station.cached()
    assert station.look() == 0
    gone = min(before)
    station.intake.consent(
        **{f"p{number}": "objection" if number == gone else "consent" for number in PATIENTS}
    )
    assert station.look() == 1
    assert station.cached() == before - {gone}
    assert not set(station.files[gone]) & station.cache.sources()
    kept = list((station.folder / "volumes").rglob("*.nii"))
    assert len(kept) == len(before) - 1
    station.freeze()
    assert station.cached() == before - {gone}


def test_images_deleted_at_the_source_are_gone_too(station: Station) -> None:
    before = station.cached()
    gone = min(before)
    removal = Removal(
        collection=COLLECTION, sop_instance_uid=f"2.25.{100_003 + 1000 * gone}", reason="deleted"
    )
    station.intake.log.append(
        RemovedContent(removals=(removal,)), station.intake.operation(), now=datetime.now(UTC)
    )
    assert station.look() == 1
    assert station.cached() == before - {gone}


def test_a_look_that_was_missed_is_made_up_for_after_a_restart(station: Station, tmp_path: Path) -> None:
    before = station.cached()
    station.intake.consent()
    station.catalogue.sync()
    again = VolumeKeeper(
        VolumeCache(tmp_path / "volumes"),
        station.catalogue,
        station.audit,
        modes=OFFERED,
        keep_for=timedelta(days=90),
        clock=lambda: NOW,
    )
    assert again.look() == len(before)
    assert station.cached() == set()
    assert again.look() == 0


def test_volumes_that_nobody_asked_for_go_after_their_term(station: Station) -> None:
    count = len(station.cached())
    station.moment = datetime.now(UTC) + timedelta(days=89)
    assert station.look() == 0
    station.moment += timedelta(days=2)
    assert station.look() == count
    assert station.cached() == set()
