"""What changes in the PACS reaches our caches: rejection notes (IOCM) and deletions, against storescu and a real Orthanc."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pacs_kit import Orthanc, acknowledged, dcmtk, free_port, storescu_arguments, wait_until
from pacs_station import (
    COLLECTION,
    FEED_AET,
    MODALITY_AET,
    MOVE_AET,
    STATION_AET,
    DeskKit,
    desk_kit,
    handed_over,
    pacs_settings,
    radiograph,
    receiver_settings,
    study,
    write_files,
)
from pseudonym_files import file_bytes, item, sequence
from pydicom.dataset import Dataset, FileMetaDataset

from policies.errors import UsageError
from station.handover import RemovedContent, load_public_key, read_handover
from station.intake.sources.rejections import REJECTION_TITLES

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def note(code: str, *uids: str, scheme: str = "DCM") -> bytes:
    """A key object selection about instances of study 1."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = KEY_OBJECT_SELECTION
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.826.0.1.9.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.7.1.2", "1.2.826.0.1.9.2"
    dataset.Modality, dataset.PatientID = "KO", "3700001"
    dataset.ConceptNameCodeSequence = sequence(
        item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=REJECTION_TITLES.get(code, "x"))
    )
    references = [item(ReferencedSOPClassUID=DX, ReferencedSOPInstanceUID=uid) for uid in uids]
    series = item(SeriesInstanceUID="1.2.826.0.1.7.1.3", ReferencedSOPSequence=sequence(*references))
    dataset.CurrentRequestedProcedureEvidenceSequence = sequence(
        item(StudyInstanceUID="1.2.826.0.1.7.1.2", ReferencedSeriesSequence=sequence(series))
    )
    return file_bytes(dataset)


def image(number: int) -> str:
    return f"1.2.826.0.1.7.1.1.{number}"


def send(folder: Path, port: int, *data: bytes) -> int:
    """Send as the modality; returns how many were acknowledged."""
    files = write_files(folder, data)
    arguments = storescu_arguments(port, files, calling=MODALITY_AET, called=FEED_AET)
    result = dcmtk("storescu", "-nh", *arguments)
    return len(acknowledged(result.stdout + result.stderr))


def removed(kit: DeskKit) -> list[tuple[str, str]]:
    public_key = load_public_key(kit.paths.handover_public_key)
    entries = read_handover(kit.paths.handover, public_key)
    return [
        (removal.sop_instance_uid, removal.reason)
        for entry in entries
        if isinstance(entry.content, RemovedContent)
        for removal in entry.content.removals
    ]


@pytest.fixture
def receiving(home: Path, tmp_path: Path) -> Iterator[tuple[DeskKit, int]]:
    """An intake that holds study 1 with three images."""
    port = free_port()
    with desk_kit(home, receiver_settings(port)) as kit:
        assert send(tmp_path / "images", port, *study(1, 3)) == 3
        wait_until(lambda: bool(kit.accepted), "the batch")
        kit.process()
        assert kit.intake.status().instances == 3
        yield kit, port


@pytest.mark.parametrize("code", REJECTION_TITLES)
def test_a_rejection_note_removes_what_it_names(
    receiving: tuple[DeskKit, int], tmp_path: Path, code: str
) -> None:
    kit, port = receiving
    assert send(tmp_path / "note", port, note(code, image(0), image(2))) == 1
    # It was acknowledged: so it is done.
    assert kit.intake.status().instances == 1
    gone = {kit.intake.remap_uid(image(number)) for number in (0, 2)}
    assert {uid for uid, _ in removed(kit)} == gone
    assert {reason for _, reason in removed(kit)} == {"rejected"}
    assert send(tmp_path / "again", port, note(code, image(0), image(2))) == 1
    assert len(removed(kit)) == 2


def test_a_rejection_that_overtakes_its_instance_keeps_it_out(
    receiving: tuple[DeskKit, int], tmp_path: Path
) -> None:
    kit, port = receiving
    assert send(tmp_path / "note", port, note("113001", "1.2.826.0.1.7.5.1")) == 1
    assert send(tmp_path / "late", port, radiograph(5), radiograph(6)) == 2
    wait_until(lambda: bool(kit.accepted), "the batch")
    kit.process()
    assert kit.intake.status().instances == 4
    assert kit.intake.remap_uid("1.2.826.0.1.7.5.1") not in handed_over(kit.paths)


def test_other_key_objects_and_notes_that_say_nothing_are_refused(
    receiving: tuple[DeskKit, int], tmp_path: Path
) -> None:
    kit, port = receiving
    others = (note("113000", image(0)), note("113001", image(0), scheme="99X"), note("113001"))
    for number, data in enumerate(others):
        assert send(tmp_path / str(number), port, data) == 0
    assert kit.intake.status().instances == 3
    assert removed(kit) == []


def reconciled(kit: DeskKit, confirmed: int | None = None) -> Any:
    kit.desk.reconcile("main", COLLECTION, confirmed)

    def latest() -> Any:
        return kit.desk.reconciled("main")

    wait_until(lambda: latest().state.value != "running", "the comparison")
    return latest()


@pytest.fixture
def held(home: Path, tmp_path: Path) -> Iterator[tuple[DeskKit, Orthanc]]:
    """A PACS with ten studies of two images, and an intake that holds them all."""
    port = free_port()
    with Orthanc(tmp_path / "pacs", {STATION_AET: port, MOVE_AET: port}) as pacs:
        for number in range(10):
            pacs.add(*study(number, 2))
        with desk_kit(home, receiver_settings(port), pacs_settings(pacs.dicom_port)) as kit:
            lines = "\n".join(f"ACC{number:05d}" for number in range(10)).encode()
            kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, lines).job)
            wait_until(lambda: len(kit.accepted) == 10, "the batches")
            kit.process()
            assert kit.intake.status().instances == 20
            yield kit, pacs


def test_what_was_deleted_in_the_pacs_is_removed_here(held: tuple[DeskKit, Orthanc]) -> None:
    kit, pacs = held
    assert reconciled(kit).gone == 0
    pacs.remove("instance", "1.2.826.0.1.7.3.1.1")
    report = reconciled(kit)
    assert (report.state.value, report.gone, report.removed, report.studies_gone) == ("removed", 1, 1, 0)
    assert removed(kit) == [(kit.intake.remap_uid("1.2.826.0.1.7.3.1.1"), "deleted")]
    assert (report.studies, report.unasked, report.unclear, report.instances) == (10, 0, 0, 20)
    assert kit.intake.status().instances == 19


def test_much_at_once_needs_the_operators_word(held: tuple[DeskKit, Orthanc]) -> None:
    kit, pacs = held
    for number in range(4):
        pacs.remove("study", f"1.2.826.0.1.7.{number}.2")
    report = reconciled(kit)
    assert (report.state.value, report.gone, report.studies_gone, report.removed) == (
        "needs-confirmation", 8, 4, 0,
    )  # fmt: skip
    assert reconciled(kit, confirmed=7).state.value == "needs-confirmation"
    assert kit.intake.status().instances == 20
    report = reconciled(kit, confirmed=8)
    assert (report.state.value, report.removed) == ("removed", 8)
    assert kit.intake.status().instances == 12


def test_a_pacs_that_is_empty_wipes_nothing(held: tuple[DeskKit, Orthanc], tmp_path: Path) -> None:
    kit, pacs = held
    for patient in pacs.client.get("/patients").json():
        pacs.client.delete(f"/patients/{patient}").raise_for_status()
    report = reconciled(kit)
    assert (report.state.value, report.reason, report.gone) == ("needs-confirmation", "", 20)
    assert report.removed == 0
    assert kit.intake.status().instances == 20


def test_a_pacs_that_is_away_or_dies_meanwhile_removes_nothing(held: tuple[DeskKit, Orthanc]) -> None:
    kit, pacs = held
    pacs.remove("instance", "1.2.826.0.1.7.3.1.1")
    killer = threading.Thread(target=pacs.kill)
    kit.desk.reconcile("main", COLLECTION)
    killer.start()
    killer.join()
    wait_until(lambda: kit.desk.reconciled("main").state.value != "running", "the comparison")  # type: ignore[union-attr]
    report = reconciled(kit)
    assert (report.state.value, report.reason, report.removed) == ("failed", "unreachable", 0)
    assert kit.intake.status().instances >= 19
    with pytest.raises(UsageError):
        kit.desk.reconcile("main", "other")
