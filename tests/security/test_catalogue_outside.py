"""Reading one patient from what is told outside: by asking often, by watching for long, by knowing everybody else."""

import json
from datetime import timedelta
from pathlib import Path

from catalogue_log import COLLECTION, NOW, Intake, patient

from policies.wire.instructions import Kind
from station.catalogue import Catalogue
from station.catalogue.dcat import catalogue as dcat_catalogue
from station.catalogue.profile import station_profile
from station.catalogue.published import PublishedCounts
from station.handover import Acquisition
from station.settings.example import example
from station.storage import Database, open_database

TARGET = 77


def told(intake: Intake, database: Database, weeks: int) -> str:
    """Everything that is told outside, as one text."""
    settings = example()
    Catalogue(database, intake.folder, intake.key.public_key()).sync()
    now = NOW + timedelta(weeks=weeks)
    table = PublishedCounts(database, settings.counts, [COLLECTION]).table(now)
    profile = station_profile(settings, table, None, NOW)
    return json.dumps(
        [profile.model_dump(mode="json"), dcat_catalogue(settings, table, (), NOW)], sort_keys=True
    )


def test_a_patient_who_comes_and_goes_every_week_leaves_no_trace(tmp_path: Path) -> None:
    intake, database = Intake(tmp_path / "handover"), open_database(tmp_path / "station.db")
    intake.instances(*range(45))
    first = told(intake, database, 0)
    for week in range(1, 9):
        if week % 2:
            # One with many images of many kinds, at that.
            for number in range(15):
                intake_number = 5000 + number
                intake.instances(
                    TARGET, sop_instance_uid=f"2.25.{intake_number}", modality="CT" if number % 2 else "DX"
                )
        else:
            from station.handover import Removal, RemovedContent

            removals = tuple(
                Removal(collection=COLLECTION, sop_instance_uid=f"2.25.{5000 + number}", reason="deleted")
                for number in range(15)
            )
            intake.log.append(RemovedContent(removals=removals), intake.operation(), now=NOW)
        assert told(intake, database, week) == first
    database.close()


def test_nothing_of_one_patient_is_in_what_is_told(tmp_path: Path) -> None:
    intake, database = Intake(tmp_path / "handover"), open_database(tmp_path / "station.db")
    rare = Acquisition(manufacturer="Rare Maker", kernel="XYZ", slice_thickness_mm=0.123, study_year=1987)
    intake.instances(*range(43), acquisition=rare)
    intake.clinical(*range(43), crp_mg_l=321.5)
    text = told(intake, database, 0)
    for secret in ("Rare Maker", "XYZ", "0.123", "1987", "321.5", '"43"', ": 43", patient(1), "2.25."):
        assert secret not in text, secret
    database.close()


def test_the_orchestrator_has_no_word_for_a_question() -> None:
    # A closed list: what an orchestrator can make a station do carries no predicate, and no count comes back.
    assert {kind.value for kind in Kind} == {"prepare", "train", "evaluate", "analyse", "finish"}
