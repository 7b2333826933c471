"""What would stop a train: CT series with each fault, read in the confined process; consent, labels, masks; kept findings."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake
from ct_files import hand_over

from policies.errors import StateError
from policies.manifest import DataNeeds, Modality
from policies.policy import ConsentMode
from station.catalogue import Catalogue
from station.catalogue.readiness import (
    ADVICE,
    BODY_PART,
    CONSENT_STALE,
    CONSENT_UNKNOWN,
    LISTED,
    NO_CLINICAL_ROW,
    NO_CONSENT,
    TOO_FEW_PATIENTS,
    SeriesFacts,
    Tally,
)
from station.catalogue.readiness_job import ReadinessJob, ReadinessQuestion, ReadinessReport
from station.cohorts import Unusable
from station.handover import Acquisition
from station.storage import Database, open_database
from train_images.phantoms import CtFault

CT = DataNeeds(
    modalities=(Modality.CT,), profile="thorax-1@1", clinical_fields=("pneumonia",), label="pneumonia"
)
MONTH = timedelta(days=30)


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "handover")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "station.db")
    yield database
    database.close()


def question(
    needs: DataNeeds | None = CT,
    *,
    minimum: int = 1,
    mode: ConsentMode = ConsentMode.OPT_IN,
    limit: timedelta = MONTH,
) -> ReadinessQuestion:
    return ReadinessQuestion({COLLECTION: mode}, needs, minimum, limit)


def look(
    intake: Intake, database: Database, asked: ReadinessQuestion | None = None, clock: timedelta = timedelta()
) -> ReadinessReport:
    Catalogue(database, intake.folder, intake.key.public_key()).sync()
    job = ReadinessJob(database, intake.folder, lambda: NOW + clock)
    job.start(asked or question())
    deadline = time.monotonic() + 180
    while not (report := job.report()).finished:
        assert not report.failed
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    return report


def reasons(report: ReadinessReport) -> dict[str, dict[str, int]]:
    """Per series number, what stops it."""
    return {str(int(one.series_uid.removeprefix("2.25.")) - 1000): dict(one.reasons) for one in report.series}


def found(report: ReadinessReport) -> dict[str, tuple[int, int, int]]:
    (collection,) = report.collections
    return {one.reason: (one.series, one.files, one.patients) for one in collection.obstacles}


EXPECTED = {
    CtFault.GAP: Unusable.GAP,
    CtFault.DUPLICATE: Unusable.DUPLICATE_POSITION,
    CtFault.UNEVEN: Unusable.UNEVEN_SPACING,
    CtFault.TILT: Unusable.GANTRY_TILT,
    CtFault.MIXED_ORIENTATION: Unusable.MIXED_ORIENTATION,
    CtFault.MIXED_SIZE: Unusable.MIXED_SIZES,
    CtFault.MISSING_RESCALE: Unusable.MISSING_RESCALE,
    CtFault.LOCALIZER: Unusable.LOCALIZER,
}


def test_each_fault_of_a_ct_series_is_named_and_read_once(
    intake: Intake, database: Database, tmp_path: Path
) -> None:
    hand_over(intake, tmp_path, 0)
    for number, fault in enumerate(EXPECTED, start=1):
        hand_over(intake, tmp_path, number, fault)
    numbers = range(len(EXPECTED) + 1)
    intake.clinical(*numbers)
    intake.consent(**{f"p{number}": "consent" for number in numbers})
    report = look(intake, database)
    assert (report.done, report.total, report.read) == (9, 9, 9)
    named = reasons(report)
    for number, (fault, reason) in enumerate(EXPECTED.items(), start=1):
        assert reason.value in named[str(number)], fault
    assert "0" not in named, "the whole series is ready"
    (collection,) = report.collections
    assert (collection.series, collection.ready_series, collection.ready_patients) == (9, 1, 1)
    again = look(intake, database, question(None))
    assert again.read == 0, "the same files are not read again, whatever is asked"


def test_consent_labels_masks_and_the_rest(intake: Intake, database: Database, tmp_path: Path) -> None:
    for number in range(6):
        hand_over(intake, tmp_path, number)
    hand_over(intake, tmp_path, 6, transfer_syntax_uid="1.2.840.10008.1.2.4.100")
    hand_over(intake, tmp_path, 7, body_part="HEAD", acquisition=Acquisition(recognizable_face=True))
    intake.instances(8)
    intake.clinical(0, 1, 4, 5, 6, 7, 8)
    intake.clinical(2, pneumonia=None)
    intake.labels(5)
    intake.consent(p1="objection", **{f"p{number}": "consent" for number in range(9) if number != 1})
    needs = CT.model_copy(update={"masks": ("lung",)})
    named = reasons(look(intake, database, question(needs)))
    mask = Unusable.MASK_MISSING.value
    assert set(named["0"]) == {mask}
    assert set(named["1"]) == {mask, NO_CONSENT}
    assert set(named["2"]) == {mask, Unusable.LABEL_MISSING.value}
    assert set(named["3"]) == {mask, NO_CLINICAL_ROW, Unusable.LABEL_MISSING.value}
    assert "5" not in named
    assert set(named["6"]) == {mask, Unusable.TRANSFER_SYNTAX.value}
    assert set(named["7"]) == {mask, BODY_PART, Unusable.RECOGNIZABLE_FACE.value}
    assert set(named["8"]) == {mask, Unusable.MODALITY.value}, "a radiograph is nothing for a CT train"
    counts = found(look(intake, database, question(needs, minimum=2)))
    assert counts[NO_CONSENT] == (1, 12, 1), "series, files, patients"
    assert counts[TOO_FEW_PATIENTS] == (0, 0, 1)
    # Without a train: what would stop any.
    anyone = reasons(look(intake, database, question(None, mode=ConsentMode.OPT_OUT)))
    assert set(anyone["3"]) == {mask, NO_CLINICAL_ROW}
    assert "8" not in anyone


def test_the_register_itself_may_be_what_stops_them(
    intake: Intake, database: Database, tmp_path: Path
) -> None:
    intake.instances(1, 2)
    assert set(found(look(intake, database, question(None)))) >= {CONSENT_UNKNOWN}
    intake.consent(p1="consent")
    counts = found(look(intake, database, question(None), clock=timedelta(days=31)))
    assert counts[CONSENT_STALE][0] == 2
    assert NO_CONSENT not in counts


def test_a_file_that_is_gone_is_said_and_not_kept(intake: Intake, database: Database, tmp_path: Path) -> None:
    from station.handover import instance_path

    digests = hand_over(intake, tmp_path, 0)
    intake.clinical(0)
    intake.consent(p0="consent")
    place = instance_path(intake.folder, digests[3])
    kept = place.read_bytes()
    place.unlink()
    report = look(intake, database)
    assert reasons(report)["0"][Unusable.UNREADABLE.value] == 1
    place.write_bytes(kept)
    report = look(intake, database)
    assert (report.series, report.read) == ((), 1), "read again: it may be there now"
    # A series with one more file is another series.
    hand_over(intake, tmp_path / "more", 0, series_uid="2.25.1000", sop_instance_uid="2.25.77")
    assert look(intake, database).read == 1


def test_garbage_in_a_series_stops_that_series_only(
    intake: Intake, database: Database, tmp_path: Path
) -> None:
    from policies.documents import digest_of
    from station.handover import instance_path

    hand_over(intake, tmp_path, 0)
    garbage = b"\x00" * 128 + b"DICM" + b"\xff" * 4000
    place = instance_path(intake.folder, digest_of(garbage))
    place.parent.mkdir(parents=True, exist_ok=True)
    intake.instances(1, data=garbage, modality="CT")
    intake.clinical(0, 1)
    intake.consent(p0="consent", p1="consent")
    named = reasons(look(intake, database))
    assert set(named) == {"1"}
    assert set(named["1"]) <= {
        Unusable.NOT_DICOM.value,
        Unusable.DECODER_CRASHED.value,
        Unusable.NOT_CT.value,
    }


def test_one_look_at_a_time_and_it_can_be_ended(intake: Intake, database: Database, tmp_path: Path) -> None:
    hand_over(intake, tmp_path, 0)
    Catalogue(database, intake.folder, intake.key.public_key()).sync()
    going, held = threading.Event(), threading.Event()

    def clock():  # type: ignore[no-untyped-def] # noqa: ANN202
        going.set()
        held.wait(120)
        return NOW

    job = ReadinessJob(database, intake.folder, clock)
    job.start(question())
    assert going.wait(120)
    with pytest.raises(StateError, match="under way"):
        job.start(question())
    job._stop.set()
    held.set()
    job.stop()
    assert not job.report().finished
    job.start(question())
    job.stop()


def test_there_is_advice_for_every_reason() -> None:
    own = {NO_CONSENT, CONSENT_STALE, CONSENT_UNKNOWN, BODY_PART, NO_CLINICAL_ROW, TOO_FEW_PATIENTS}
    assert set(ADVICE) == {reason.value for reason in Unusable} | own


def test_a_report_names_so_many_series_and_counts_the_others() -> None:
    tally = Tally(None, CONSENT_UNKNOWN, 10)
    for number in range(LISTED + 5):
        tally.add(
            SeriesFacts(
                "c",
                f"2.25.{number + 1}",
                f"P{number % 7}",
                "DX",
                "CHEST",
                frozenset(),
                1,
                True,
                False,
                False,
                {},
                frozenset(),
            )
        )
    assert (len(tally.listed), tally.unlisted) == (LISTED, 5)
    (collection,) = tally.collections()
    assert (collection.series, collection.patients, collection.ready_patients) == (LISTED + 5, 7, 0)
    assert [one.collection for one in tally.collections(["a", "c"])] == ["a", "c"]
