"""The catalogue over a real handover log and a real database."""

from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake, patient
from cohort_files import DEFINITION

from policies.errors import TrustError
from policies.policy import ConsentMode
from policies.refusals import RefusalCode, Refused
from station.catalogue import Catalogue, CollectionCounts
from station.cohorts import CaseSource, CohortDefinition
from station.handover import HandoverError

WEEK = timedelta(days=7)
OFFERED = {COLLECTION: ConsentMode.OPT_IN}


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "handover")


@pytest.fixture
def catalogue(intake: Intake, tmp_path: Path) -> Catalogue:
    return intake.catalogue(tmp_path / "station.db")


def chosen(
    catalogue: Catalogue,
    definition: CohortDefinition = DEFINITION,
    offered: dict[str, ConsentMode] = OFFERED,
) -> list[CaseSource]:
    catalogue.sync()
    result = catalogue.cases(definition, offered, WEEK, NOW)
    assert not isinstance(result, Refused)
    return list(result)


def refusal(catalogue: Catalogue, definition: CohortDefinition = DEFINITION) -> RefusalCode:
    catalogue.sync()
    result = catalogue.cases(definition, OFFERED, WEEK, NOW)
    assert isinstance(result, Refused)
    return result.code


def test_each_entry_is_taken_up_once_over_restarts(intake: Intake, tmp_path: Path) -> None:
    intake.instances(1, 2, 3)
    intake.clinical(1, 2)
    first = intake.catalogue(tmp_path / "station.db").sync()
    assert (first.entries, first.instances, first.clinical_rows, first.consent, first.sequence) == (
        2,
        3,
        2,
        False,
        2,
    )
    intake.consent(p1="consent")
    again = intake.catalogue(tmp_path / "station.db")
    second = again.sync()
    assert (second.entries, second.consent, second.sequence) == (1, True, 3)
    assert again.sync().entries == 0


def test_an_empty_station_knows_nothing(catalogue: Catalogue) -> None:
    assert catalogue.sync().sequence == 0
    assert catalogue.collections() == ()
    assert catalogue.consent_state() is None
    assert catalogue.consent_age(NOW) is None
    assert refusal(catalogue) is RefusalCode.CONSENT_UNKNOWN


def test_counts_are_rounded(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(*range(14))
    catalogue.sync()
    assert catalogue.collections() == (CollectionCounts(COLLECTION, 10, 10, 10),)


def test_a_gap_stops_the_catalogue_where_it_stood(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.instances(2)
    intake.instances(3)
    (intake.folder / "log" / "00000002.json").rename(intake.folder / "kept.json")
    with pytest.raises(HandoverError, match="missing"):
        catalogue.sync()
    (intake.folder / "kept.json").rename(intake.folder / "log" / "00000002.json")
    assert catalogue.sync().sequence == 3


def test_a_changed_entry_gives_what_came_before_it_and_no_more(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.instances(2)
    entry = intake.folder / "log" / "00000002.json"
    good = entry.read_bytes()
    entry.write_bytes(good.replace(b"payload", b"pay1oad", 1))
    with pytest.raises(HandoverError):
        catalogue.sync()
    entry.write_bytes(good)
    report = catalogue.sync()
    assert (report.entries, report.sequence) == (1, 2)


def test_a_log_that_went_back_or_was_written_anew_is_refused(intake: Intake, tmp_path: Path) -> None:
    intake.instances(1)
    intake.instances(2)
    catalogue = intake.catalogue(tmp_path / "station.db")
    catalogue.sync()
    (intake.folder / "log" / "00000002.json").unlink()
    with pytest.raises(HandoverError):
        catalogue.sync()
    intake.instances(3)
    with pytest.raises(HandoverError):
        catalogue.sync()


def test_an_older_consent_state_is_refused_and_the_newer_stands(intake: Intake, catalogue: Catalogue) -> None:
    intake.consent(sequence=5, p1="objection")
    catalogue.sync()
    intake.consent(sequence=4, p1="consent")
    with pytest.raises(TrustError, match="older consent state"):
        catalogue.sync()
    state = catalogue.consent_state()
    assert state is not None
    assert state.sequence == 5
    assert state.decisions[patient(1)][0].answer == "objection"


def test_a_case_carries_file_label_and_granted_fields(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.clinical(1, crp_mg_l=12.5)
    intake.consent(p1="consent")
    (case,) = chosen(catalogue)
    assert case.files[0].path.read_bytes() == b"DICOM"
    assert (case.patient, case.study, case.label, case.modality) == (patient(1), "2.25.2", 1, "DX")
    assert case.clinical == {"pneumonia": 1, "sex": "F"}


def test_only_consenting_patients_are_chosen(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1, 2, 3, 4)
    intake.consent(p1="consent", p2="objection", p3="none")
    assert [case.patient for case in chosen(catalogue)] == [patient(1)]
    everyone = {COLLECTION: ConsentMode.OPT_OUT}
    # The policy accepts opt-in collections only.
    assert isinstance(catalogue.cases(DEFINITION, everyone, WEEK, NOW), Refused)
    accepting = DEFINITION.model_copy(update={"consent_modes": (ConsentMode.OPT_OUT,)})
    assert {case.patient for case in chosen(catalogue, accepting, everyone)} == {
        patient(1),
        patient(3),
        patient(4),
    }


def test_a_new_state_replaces_the_old_whole(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1, 2)
    intake.consent(p1="consent", p2="consent")
    assert len(chosen(catalogue)) == 2
    intake.consent(p2="consent")
    assert [case.patient for case in chosen(catalogue)] == [patient(2)]


@pytest.mark.parametrize("change", [{"modality": "CT"}, {"body_part": "SKULL"}, {"collection": "others"}])
def test_other_modalities_body_parts_and_collections_are_not_chosen(
    intake: Intake, catalogue: Catalogue, change: dict[str, str]
) -> None:
    intake.instances(1, **change)
    intake.consent(p1="consent")
    assert chosen(catalogue) == []


def test_an_image_in_two_collections_is_one_case(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.instances(1, collection="others")
    intake.consent(p1="consent")
    definition = DEFINITION.model_copy(update={"collections": (COLLECTION, "others")})
    assert len(chosen(catalogue, definition, OFFERED | {"others": ConsentMode.OPT_IN})) == 1


def test_an_instance_handed_over_again_replaces_the_earlier(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.instances(1, data=b"pseudonymised again")
    intake.consent(p1="consent")
    (case,) = chosen(catalogue)
    assert case.files[0].path.read_bytes() == b"pseudonymised again"


def test_without_a_clinical_row_there_is_no_label(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.clinical(1, profile="another-profile@1")
    intake.consent(p1="consent")
    (case,) = chosen(catalogue)
    assert case.label is None
    assert case.clinical == {"pneumonia": None, "sex": None}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"collections": ("others",)}, RefusalCode.HOSPITAL_COLLECTION),
        ({"profile": "thorax-1@2"}, RefusalCode.DATA_FIELDS),
    ],
)
def test_what_the_hospital_does_not_have_is_refused(
    intake: Intake, catalogue: Catalogue, change: dict[str, object], code: RefusalCode
) -> None:
    intake.instances(1)
    intake.consent(p1="consent")
    assert refusal(catalogue, DEFINITION.model_copy(update=change)) is code


def test_a_stale_register_refuses(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1)
    intake.consent(source=NOW - timedelta(days=8), p1="consent")
    assert refusal(catalogue) is RefusalCode.CONSENT_STALE
    assert catalogue.consent_age(NOW) == timedelta(days=8)
    assert isinstance(catalogue.consenting_patients(DEFINITION, OFFERED, WEEK, NOW), Refused)


def test_tables_and_migration_agree(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import MetaData

    from station.catalogue import tables
    from station.storage import Base, open_database

    ours = MetaData()
    for name, table in Base.metadata.tables.items():
        if name.startswith("catalogue_"):
            table.to_metadata(ours)
    assert len(ours.tables) == len([t for t in vars(tables).values() if hasattr(t, "__tablename__")])
    database = open_database(tmp_path / "station.db")
    with database.connection() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, _: kind != "table" or str(name).startswith("catalogue_")
            },
        )
        assert compare_metadata(context, ours) == []
    database.close()
