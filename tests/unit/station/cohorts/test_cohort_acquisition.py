"""How images were acquired, from the catalogue to a cohort's table and to the station's own counting."""

import csv
from datetime import timedelta
from pathlib import Path
from typing import Any

from catalogue_log import COLLECTION, NOW, Intake
from cohort_files import DEFINITION, KEY, case
from ct_files import CT_DEFINITION
from map_documents import map_manifest

from policies.acquisition import AcquisitionField
from policies.policy import ConsentMode
from policies.refusals import Refused
from policies.splits import Split
from station.cohorts import CaseSource, CohortDefinition, FrozenCohort, freeze
from station.cohorts.roster import Roster
from station.egress.analyses.tally import Tally
from station.handover import Acquisition

ALL = tuple(AcquisitionField)
ASKED = DEFINITION.model_copy(update={"acquisition_fields": ALL})
TAKEN: dict[str, Any] = {
    "manufacturer": "Siemens", "modality": "DX", "view_position": "PA", "slice_thickness_mm": None, "image_rows": 2022,
    "image_columns": 10**9,
}  # fmt: skip


def frozen(definition: CohortDefinition, sources: list[CaseSource], out: Path) -> FrozenCohort:
    result = freeze(definition, sources, out, KEY)
    assert isinstance(result, FrozenCohort)
    return result


def table(cohort: FrozenCohort) -> list[dict[str, str]]:
    with (cohort.path / "clinical.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_shows_what_was_granted_coarse_and_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sources = [case(folder, number, acquisition=TAKEN) for number in range(8)]
    rows = table(frozen(ASKED, sources, tmp_path / "out"))
    assert rows
    for row in rows:
        shown = {name: row[name] for name in TAKEN}
        assert shown == {
            "manufacturer": "siemens", "modality": "DX", "view_position": "PA", "slice_thickness_mm": "",
            "image_rows": "2048", "image_columns": "",
        }  # fmt: skip
    # What is not granted is not there, whatever the catalogue knows.
    (plain, *_) = table(frozen(DEFINITION, sources, tmp_path / "out"))
    assert set(plain) == {"case", "patient", "pneumonia", "sex"}


def test_the_same_inputs_give_the_same_bytes_and_another_scanner_others(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sources = [case(folder, number, acquisition=TAKEN) for number in range(8)]
    first = frozen(ASKED, sources, tmp_path / "out")
    assert frozen(ASKED, sources[::-1], tmp_path / "out").digest == first.digest
    others = [case(folder, number, acquisition=TAKEN | {"manufacturer": "Canon"}) for number in range(8)]
    assert frozen(ASKED, others, tmp_path / "out").digest != first.digest
    # A train that is not granted it learns nothing of it: not even from the digest.
    assert (
        frozen(DEFINITION, others, tmp_path / "out").digest
        == frozen(DEFINITION, sources, tmp_path / "out").digest
    )


def test_the_catalogue_has_every_field_and_a_series_shows_what_its_slices_agree_on(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "handover")
    catalogue = intake.catalogue(tmp_path / "station.db")
    for number, thickness in ((1, 5.0), (2, 5.0), (2, 2.0)):
        acquisition = Acquisition(
            manufacturer="Canon", model="One of its kind", slice_thickness_mm=thickness, rows=512, columns=500
        )
        intake.instances(
            number,
            acquisition=acquisition,
            modality="CT",
            view_position="",
            sop_instance_uid=f"2.25.{int(thickness)}{number}",
        )
    intake.consent(p1="consent", p2="consent")
    catalogue.sync()
    definition = CT_DEFINITION.model_copy(update={"acquisition_fields": ALL})
    found = catalogue.cases(definition, {COLLECTION: ConsentMode.OPT_IN}, timedelta(days=7), NOW)
    assert not isinstance(found, Refused)
    one, two = found
    assert dict(one.acquisition) == {
        "manufacturer": "Canon", "modality": "CT", "view_position": "", "slice_thickness_mm": 5.0, "image_rows": 512,
        "image_columns": 500,
    }  # fmt: skip
    assert two.acquisition["manufacturer"] == "Canon"
    assert two.acquisition["slice_thickness_mm"] is None
    unasked = catalogue.cases(CT_DEFINITION, {COLLECTION: ConsentMode.OPT_IN}, timedelta(days=7), NOW)
    assert not isinstance(unasked, Refused)
    assert not any(each.acquisition for each in unasked)


def test_the_station_counts_by_scanner_whatever_the_train_says(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sources = [
        case(folder, number, acquisition=TAKEN | {"manufacturer": "Canon" if number % 2 else "Philips"})
        for number in range(24)
    ]
    cohort = frozen(ASKED, sources, tmp_path / "out")
    roster = Roster.of(cohort, ASKED, KEY)
    columns = [
        {"name": "finding", "type": "category", "categories": ["no", "yes"]},
        {"name": "manufacturer", "type": "category", "categories": ["canon", "philips"], "source": "acquisition"},
        {"name": "both", "type": "category", "source": "combined", "of": ["finding", "manufacturer"],
         "categories": ["no.canon", "no.philips", "yes.canon", "yes.philips"]},
    ]  # fmt: skip
    manifest = map_manifest(
        {"data": {"modalities": ["DX"], "profile": "thorax-1@1", "acquisition_fields": ["manufacturer"]}},
        rows={"columns": columns},
        aggregates=[{"key": "both", "column": "both", "split": "training"}],
    )
    tally = Tally(manifest, roster)
    patients = roster.splits[Split.TRAINING]
    assert not tally.answered(patients[0], {"finding": "yes", "manufacturer": "canon"})
    for patient in patients[1:]:
        assert tally.answered(patient, {"finding": "yes"})
    (item,) = manifest.outputs.aggregates
    makers = [roster.shown(patient, "manufacturer")[0] for patient in patients[1:]]
    assert tally.exact(item, 1).counts.ravel().tolist() == [
        0,
        0,
        makers.count("canon"),
        makers.count("philips"),
    ]
    assert {"canon", "philips"} == set(makers)


def test_a_cohort_of_before_has_the_bytes_of_before(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sources = [case(folder, number, acquisition=TAKEN) for number in range(8)]
    for definition in (DEFINITION, ASKED):
        text = (frozen(definition, sources, tmp_path / "out").path / "cohort.json").read_bytes()
        assert (b"acquisition" in text) is (definition is ASKED)


def test_definitions_of_earlier_versions_ask_for_none() -> None:
    earlier = DEFINITION.model_dump_json(exclude={"acquisition_fields"})
    assert CohortDefinition.model_validate_json(earlier) == DEFINITION
