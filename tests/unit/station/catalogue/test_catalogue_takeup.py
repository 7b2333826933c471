"""What the handover says of acquisition, masks, removals and merges, as the catalogue takes it up."""

from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake, patient
from cohort_files import DEFINITION
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from policies.policy import ConsentMode
from policies.refusals import Refused
from station.catalogue import Catalogue, Standing
from station.catalogue.tables import Clinical, ConsentDecision, Instance, Label, MergedPatient, RemovedCount
from station.handover import Acquisition, ConsentContent, ConsentRecord
from station.storage import Database, open_database

WEEK = timedelta(days=7)
OFFERED = {COLLECTION: ConsentMode.OPT_IN}
ANSWERS = ("consent", "none", "objection")


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "handover")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


@pytest.fixture
def catalogue(intake: Intake, database: Database) -> Catalogue:
    return Catalogue(database, intake.folder, intake.key.public_key())


def rows(database: Database, table: type) -> list:  # type: ignore[type-arg]
    with database.read() as session:
        return list(session.scalars(select(table)))


def standing(catalogue: Catalogue) -> Standing:
    catalogue.sync()
    found = catalogue.standing(DEFINITION, OFFERED, WEEK, NOW)
    assert not isinstance(found, Refused)
    return found


def test_how_an_instance_was_acquired_is_kept(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    acquisition = Acquisition(
        manufacturer="Siemens", model="Force", kernel="Br40d", slice_thickness_mm=1.5, study_year=2019, rows=512,
        columns=500, image_type=("ORIGINAL", "PRIMARY", "AXIAL"), recognizable_face=True, pixels="inspected",
    )  # fmt: skip
    intake.instances(1, acquisition=acquisition)
    intake.instances(2)
    catalogue.sync()
    told, silent = sorted(rows(database, Instance), key=lambda row: row.patient)
    assert (told.manufacturer, told.model, told.kernel, told.slice_thickness_mm) == (
        "Siemens",
        "Force",
        "Br40d",
        1.5,
    )
    assert (told.study_year, told.rows, told.columns, told.recognizable_face) == (2019, 512, 500, True)
    assert (told.image_type, told.pixels) == ("ORIGINAL\\PRIMARY\\AXIAL", "inspected")
    assert (silent.manufacturer, silent.slice_thickness_mm, silent.recognizable_face) == ("", None, None)
    assert silent.pixels == "not-inspected"


def test_a_removed_instance_is_gone_once_and_counted(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.instances(1, 2, 3)
    intake.consent(p1="consent", p2="consent")
    assert standing(catalogue).patients == {patient(1), patient(2)}
    intake.removed(1, 3)
    intake.removed(1, reason="rejected")
    report = catalogue.sync()
    assert (report.removed, report.taken_away) == (2, True)
    assert standing(catalogue).patients == {patient(2)}
    counts = [(row.collection, row.reason, row.instances) for row in rows(database, RemovedCount)]
    assert counts == [(COLLECTION, "deleted", 2)], "what was not there was not removed"
    assert not catalogue.sync().taken_away


def test_an_instance_removed_from_one_collection_stands_in_the_other(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.instances(1)
    intake.instances(1, collection="others")
    intake.removed(1, collection="others")
    catalogue.sync()
    assert [row.collection for row in rows(database, Instance)] == [COLLECTION]


def test_masks_go_with_the_last_instance_of_their_series(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    for number in (1, 2):
        intake.instances(number, series_uid="2.25.1001")
    intake.labels(1, names=("lung", "nodule"))
    intake.labels(1, names=("lung", "nodule"), data=b"drawn again")
    assert catalogue.sync().labels == 2
    (label,) = rows(database, Label)
    assert (label.names, label.size_bytes, label.patient) == ("lung nodule", len(b"drawn again"), patient(1))
    intake.removed(1)
    catalogue.sync()
    assert len(rows(database, Label)) == 1
    intake.removed(2)
    catalogue.sync()
    assert rows(database, Label) == []


def test_a_merged_patient_is_the_other_one_everywhere(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.instances(1, 2)
    intake.clinical(1, 2)
    intake.labels(1)
    intake.consent(p1="consent", p2="consent")
    before = standing(catalogue)
    intake.merged(1, into=2)
    report = catalogue.sync()
    assert (report.merged, report.taken_away) == (1, True)
    for table in (Instance, Clinical, Label, ConsentDecision):
        assert {row.patient for row in rows(database, table)} == {patient(2)}, table
    now = standing(catalogue)
    assert len(now.files) == 2
    assert not now.covers(before)
    assert now.lost(before) == {patient(1)}


def test_later_entries_under_the_old_pseudonym_are_the_other_one_s(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.merged(1, into=2)
    intake.merged(2, into=3)
    intake.instances(1, 2)
    intake.clinical(1)
    intake.labels(1)
    intake.consent(p1="objection", p3="consent")
    catalogue.sync()
    for table in (Instance, Clinical, Label, ConsentDecision):
        assert {row.patient for row in rows(database, table)} == {patient(3)}, table
    assert rows(database, ConsentDecision)[0].decision == "objection", "an objection is not lost"


def test_a_merge_the_other_way_round_ends_the_earlier(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.merged(1, into=2)
    intake.merged(2, into=1)
    intake.merged(1, into=1)
    intake.instances(1, 2)
    catalogue.sync()
    assert {row.patient for row in rows(database, Instance)} == {patient(1)}
    assert [(row.patient, row.into) for row in rows(database, MergedPatient)] == [(patient(2), patient(1))]


@pytest.mark.parametrize("second", [(1, 3), (3, 1)])
def test_a_name_that_was_merged_keeps_who_it_is(
    intake: Intake, catalogue: Catalogue, database: Database, second: tuple[int, int]
) -> None:
    intake.instances(1, 2, 3)
    intake.consent(p1="consent", p2="objection", p3="consent")
    intake.merged(1, into=2)
    intake.merged(second[0], into=second[1])
    catalogue.sync()
    names = {row.patient for row in rows(database, Instance)}
    assert len(names) == 1
    assert {row.patient for row in rows(database, MergedPatient)} | names == {patient(n) for n in (1, 2, 3)}
    assert {row.into for row in rows(database, MergedPatient)} == names
    assert [row.decision for row in rows(database, ConsentDecision)] == ["objection"]


def test_two_rows_of_one_study_become_one(intake: Intake, catalogue: Catalogue, database: Database) -> None:
    from station.handover import ClinicalContent, ClinicalRow

    for number, values in (
        (1, {"sex": "M", "crp_mg_l": 3.0, "age": None}),
        (2, {"sex": None, "crp_mg_l": 4.0}),
    ):
        row = ClinicalRow(patient=patient(number), study_uid="2.25.5", values=values)
        content = ClinicalContent(collection=COLLECTION, profile="thorax-1@1", rows=(row,))
        intake.log.append(content, intake.operation(), now=NOW)
    intake.merged(1, into=2)
    catalogue.sync()
    (row,) = rows(database, Clinical)
    assert row.fields == {"sex": "M", "crp_mg_l": 4.0, "age": None}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.sampled_from(ANSWERS), second=st.sampled_from(ANSWERS), merged_first=st.booleans())
def test_of_two_answers_that_meet_the_stricter_stands(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str, *, merged_first: bool
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    intake, database = Intake(folder / "handover"), open_database(folder / "station.db")
    catalogue = Catalogue(database, intake.folder, intake.key.public_key())

    def state() -> None:
        records = tuple(
            ConsentRecord(
                patient=patient(number), purpose="research-participants", decision=answer, date="2026-01-01"
            )
            for number, answer in ((1, first), (2, second))
        )
        content = ConsentContent(consent_sequence=1, source_date=NOW, records=records)
        intake.log.append(content, intake.operation(), now=NOW)

    steps = [state, lambda: intake.merged(1, into=2)]
    for step in reversed(steps) if merged_first else steps:
        step()
    catalogue.sync()
    (row,) = rows(database, ConsentDecision)
    assert (row.patient, row.decision) == (patient(2), max(first, second, key=ANSWERS.index))
    database.close()


def test_an_answer_that_nobody_knows_is_the_strictest(
    intake: Intake, catalogue: Catalogue, database: Database
) -> None:
    intake.consent(p1="consent", p2="objection")
    catalogue.sync()
    with database.write() as session:
        for row in session.scalars(select(ConsentDecision)):
            row.decision = "maybe" if row.patient == patient(1) else row.decision
    intake.merged(1, into=2)
    catalogue.sync()
    assert [row.decision for row in rows(database, ConsentDecision)] == ["maybe"]


def test_an_entry_that_fails_in_its_middle_leaves_nothing(
    intake: Intake, catalogue: Catalogue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from station.catalogue import takeup

    intake.instances(1, 2)
    catalogue.sync()
    intake.merged(1, into=2)
    with monkeypatch.context() as patched:
        patched.setattr(takeup, "_merge_consent", lambda *_: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            catalogue.sync()
    assert {row.patient for row in rows(database, Instance)} == {patient(1), patient(2)}
    assert rows(database, MergedPatient) == []
    assert catalogue.sync().merged == 1


def test_a_file_that_was_pseudonymised_again_is_another_file(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.consent(p1="consent")
    before = standing(catalogue)
    intake.instances(2)
    assert standing(catalogue).covers(before), "what came since does not matter"
    intake.instances(1, data=b"with its text masked")
    now = standing(catalogue)
    assert not now.covers(before)
    assert now.lost(before) == {patient(1)}


def test_a_choice_is_made_again_when_the_catalogue_changed(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1, 2)
    intake.consent(p1="consent", p2="consent")
    catalogue.sync()
    first = catalogue.cases(DEFINITION, OFFERED, WEEK, NOW)
    assert catalogue.cases(DEFINITION, OFFERED, WEEK, NOW) is first, "remembered"
    assert isinstance(catalogue.cases(DEFINITION, OFFERED, WEEK, NOW + timedelta(days=8)), Refused)
    intake.consent(p2="consent")
    catalogue.sync()
    assert standing(catalogue).patients == {patient(2)}
