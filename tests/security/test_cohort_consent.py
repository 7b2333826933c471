"""Ways to get a patient into a cohort without consent; each gives a cohort without them, or a refusal."""

from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake, patient
from cohort_files import DEFINITION
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from policies.policy import ConsentMode, ConsentPurpose
from policies.refusals import RefusalCode, Refused
from station.catalogue import Catalogue
from station.handover import HandoverError
from station.storage import open_database

WEEK = timedelta(days=7)
OFFERED = {COLLECTION: ConsentMode.OPT_IN}


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path / "handover")
    intake.instances(1, 2)
    intake.consent(p1="objection", p2="consent")
    return intake


def patients(catalogue: Catalogue) -> frozenset[str]:
    catalogue.sync()
    found = catalogue.consenting_patients(DEFINITION, OFFERED, WEEK, NOW)
    assert not isinstance(found, Refused)
    return found


def test_a_consent_state_signed_by_someone_else_changes_nothing(intake: Intake, tmp_path: Path) -> None:
    catalogue = intake.catalogue(tmp_path / "station.db")
    assert patients(catalogue) == {patient(2)}
    forger = Intake(intake.folder, Ed25519PrivateKey.generate())
    entry = intake.folder / "log" / "00000003.json"
    other = Intake(tmp_path / "elsewhere", forger.key)
    for _ in range(2):
        other.instances(9)
    other.consent(sequence=9, p1="consent", p2="consent")
    entry.write_bytes((other.folder / "log" / "00000003.json").read_bytes())
    with pytest.raises(HandoverError, match="signature"):
        catalogue.sync()
    assert catalogue.consenting_patients(DEFINITION, OFFERED, WEEK, NOW) == {patient(2)}


def test_an_earlier_state_played_again_is_refused(intake: Intake, tmp_path: Path) -> None:
    catalogue = intake.catalogue(tmp_path / "station.db")
    first = (intake.folder / "log" / "00000002.json").read_bytes()
    intake.consent(p1="objection", p2="objection")
    assert patients(catalogue) == frozenset()
    (intake.folder / "log" / "00000004.json").write_bytes(first)
    with pytest.raises(HandoverError):
        catalogue.sync()
    assert catalogue.consenting_patients(DEFINITION, OFFERED, WEEK, NOW) == frozenset()


def test_an_answer_of_an_unknown_kind_is_an_objection(intake: Intake, tmp_path: Path) -> None:
    assert patients(intake.catalogue(tmp_path / "station.db")) == {patient(2)}
    database = open_database(tmp_path / "station.db")
    with database.write() as session:
        session.execute(text("UPDATE catalogue_consent SET decision = 'yes'"))
    catalogue = Catalogue(database, intake.folder, intake.key.public_key())
    accepting = DEFINITION.model_copy(update={"consent_modes": (ConsentMode.OPT_OUT,)})
    found = catalogue.consenting_patients(accepting, {COLLECTION: ConsentMode.OPT_OUT}, WEEK, NOW)
    assert found == frozenset()
    database.close()


def test_a_policy_cannot_choose_the_mode_in_which_patients_were_asked(intake: Intake, tmp_path: Path) -> None:
    catalogue = intake.catalogue(tmp_path / "station.db")
    catalogue.sync()
    wishing = DEFINITION.model_copy(update={"consent_modes": (ConsentMode.OPT_OUT,)})
    refused = catalogue.consenting_patients(wishing, OFFERED, WEEK, NOW)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.HOSPITAL_COLLECTION


def test_consent_to_one_purpose_is_no_consent_to_another(intake: Intake, tmp_path: Path) -> None:
    catalogue = intake.catalogue(tmp_path / "station.db")
    catalogue.sync()
    commercial = DEFINITION.model_copy(update={"consent_purposes": (ConsentPurpose.RESEARCH_COMMERCIAL,)})
    assert catalogue.consenting_patients(commercial, OFFERED, WEEK, NOW) == frozenset()


def test_two_answers_of_one_patient_count_as_the_stricter(tmp_path: Path) -> None:
    from station.handover import ConsentContent, ConsentRecord

    intake = Intake(tmp_path / "handover")
    intake.instances(1)
    records = tuple(
        ConsentRecord(patient=patient(1), purpose="research-participants", decision=answer, date="2026-01-01")
        for answer in ("objection", "consent")
    )
    intake.log.append(ConsentContent(consent_sequence=1, source_date=NOW, records=records), "twice", now=NOW)
    assert patients(intake.catalogue(tmp_path / "station.db")) == frozenset()
