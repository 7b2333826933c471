"""DICOM files of one patient in two trains share no UID, no date, no time and no name; inside one train they still fit."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from cohort_files import KEY, tree
from ct_files import CT_DEFINITION, PEOPLE, SMALL, ct_case
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence

from policies.documents import digest_of
from policies.splits import Split
from station.cohorts import CaseSource, CohortDefinition, FrozenCohort, SourceFile, Unusable, freeze
from station.cohorts.decoder import Decoder
from station.cohorts.rekeying import map_uid, rekey
from station.cohorts.unusable import UnusableImage
from train_images.phantoms import write_ct_series

DICOM = CT_DEFINITION.model_copy(update={"representation": "dicom"})
TRAINS = (
    DICOM,
    DICOM.model_copy(update={"policy_id": "another-policy"}),
    DICOM.model_copy(update={"manifest_digest": "sha256:" + "2" * 64}),
)
TWICE = next(number for number, person in enumerate(PEOPLE) if len(person.studies) > 1)


def enriched(path: Path, number: int) -> SourceFile:
    """A slice with nested references, a date and time of day in every form, and what intake keeps as pseudonyms."""
    dataset = dcmread(path)
    dataset.PatientID = dataset.PatientName = f"PSEUDONYM{number}"
    dataset.AccessionNumber, dataset.StudyID = f"ACC{number}", f"S{number}"
    dataset.AcquisitionDateTime = "20200131235959.5+0100"
    dataset.ContentTime = "000030.25"
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = "", "101112"
    item, nested = Dataset(), Dataset()
    nested.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    nested.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    nested.StudyDate, nested.StudyTime = dataset.StudyDate, dataset.StudyTime
    item.ReferencedSOPSequence = Sequence([nested])
    dataset.ReferencedImageSequence = Sequence([item])
    dataset.save_as(path)
    return SourceFile(path, digest_of(path.read_bytes()))


def case(folder: Path, number: int) -> CaseSource:
    source = ct_case(folder, number)
    return CaseSource(
        case=source.case,
        patient=f"PSEUDONYM{number}",
        study=source.study,
        files=tuple(enriched(file.path, number) for file in source.files),
        label=source.label,
        clinical=source.clinical,
        modality="CT",
    )


def frozen(definition: CohortDefinition, sources: list[CaseSource], out: Path) -> FrozenCohort:
    result = freeze(definition, sources, out, KEY)
    assert isinstance(result, FrozenCohort)
    return result


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[CaseSource]:
    given = [n for n in range(10) if KEY.split_of(f"PSEUDONYM{n}") is not Split.TESTING]
    return [case(tmp_path_factory.mktemp("files"), number) for number in given[:3]]


@pytest.fixture(scope="module")
def cohorts(sources: list[CaseSource], tmp_path_factory: pytest.TempPathFactory) -> list[FrozenCohort]:
    return [frozen(definition, sources, tmp_path_factory.mktemp("out")) for definition in TRAINS]


def files(cohort: FrozenCohort) -> Iterator[FileDataset]:
    for path in sorted((cohort.path / "dicom").rglob("*.dcm")):
        yield dcmread(path)


def values(dataset: Dataset, *vrs: str) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR in vrs:
            yield from map(str, element.value if element.VM > 1 else [element.value])


def identifying(cohort: FrozenCohort) -> set[str]:
    """Every UID that is not the standard's, every date and time, every name and number."""
    found: set[str] = set()
    for dataset in files(cohort):
        found |= {uid for uid in values(dataset, "UI") if not uid.startswith("1.2.840.10008.")}
        found |= {str(dataset.file_meta.MediaStorageSOPInstanceUID)}
        found |= set(values(dataset, "DA", "DT"))
        # A time of day of some thousand patients is shared by chance; of these few it is not.
        found |= set(values(dataset, "TM"))
        found |= {str(dataset.PatientID), str(dataset.PatientName), str(dataset.AccessionNumber)}
    found |= {path.name for path in (cohort.path / "dicom").iterdir()}
    return found - {""}


def test_two_trains_share_nothing_that_links(cohorts: list[FrozenCohort]) -> None:
    sets = [identifying(cohort) for cohort in cohorts]
    assert all(len(found) > 50 for found in sets)
    for one in range(3):
        for two in range(one):
            assert not sets[one] & sets[two]


def test_nothing_of_the_projects_is_left(cohorts: list[FrozenCohort], sources: list[CaseSource]) -> None:
    known = set()
    for source in sources:
        for file in source.files:
            dataset = dcmread(file.path)
            known |= {uid for uid in values(dataset, "UI") if not uid.startswith("1.2.840.10008.")}
            known |= {f"{dataset.StudyDate}", "20200131235959", source.patient, f"ACC{source.patient[-1]}"}
    for cohort in cohorts:
        assert not known & identifying(cohort)
        for name, data in tree(cohort.path).items():
            for value in known:
                assert value.encode() not in data, name


def test_inside_one_train_everything_still_fits(
    cohorts: list[FrozenCohort], sources: list[CaseSource]
) -> None:
    cohort = cohorts[0]
    moved = 0
    for folder in (cohort.path / "dicom").iterdir():
        slices = [dcmread(path) for path in folder.iterdir()]
        assert len(slices) == SMALL.slices
        for keyword in (
            "SeriesInstanceUID",
            "StudyInstanceUID",
            "FrameOfReferenceUID",
            "PatientID",
            "StudyDate",
        ):
            assert len({str(each[keyword].value) for each in slices}) == 1
        assert len({str(each.SOPInstanceUID) for each in slices}) == SMALL.slices
        for each in slices:
            assert each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID
            nested = each.ReferencedImageSequence[0].ReferencedSOPSequence[0]
            assert nested.ReferencedSOPInstanceUID == each.SOPInstanceUID
            assert (nested.StudyDate, nested.StudyTime) == (each.StudyDate, each.StudyTime)
            assert each.PatientID == each.PatientName
            assert re.fullmatch("p[a-z2-7]{16}", each.PatientID)
            moved += 1
    originals = {dcmread(file.path).PixelData for source in sources for file in source.files}
    assert {each.PixelData for each in files(cohort)} <= originals
    assert moved


def moment(dataset: Dataset, of: str) -> datetime:
    text = f"{dataset[of + 'Date'].value}{str(dataset[of + 'Time'].value)[:6]}"
    return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007


def test_dates_and_times_move_as_one_and_intervals_stay(tmp_path: Path) -> None:
    """Two studies of one patient lie as far apart as before, to the second."""
    person = PEOPLE[TWICE]
    key, scope = KEY.uid_key(DICOM.scope), DICOM.scope
    shift_s = KEY.shift_s(scope, "PSEUDONYM")
    before, after = [], []
    for number, study in enumerate(person.studies[:2]):
        folder = tmp_path / str(number)
        path = write_ct_series(folder, person=person, study=study, seed=1, scanner=SMALL).files[0]
        enriched(path, 1)
        before.append(dcmread(path))
        after.append(dcmread(BytesIO(rekey(path.read_bytes(), key, "p1", shift_s))))
    assert moment(after[1], "Study") - moment(after[0], "Study") == moment(before[1], "Study") - moment(
        before[0], "Study"
    )
    for old, new in zip(before, after, strict=True):
        assert moment(old, "Study") - moment(new, "Study") == timedelta(seconds=shift_s)
        assert moment(old, "Content") - moment(new, "Content") == timedelta(seconds=shift_s)
        assert str(new.ContentTime).endswith(".25")
        assert str(new.AcquisitionDateTime).endswith(".5+0100")
        assert (new.DateOfSecondaryCapture or "") == ""
        assert (new.TimeOfSecondaryCapture or "") not in {"", "101112"}


def test_shifts_differ_between_patients_and_trains_and_stay_in_the_window() -> None:
    shifts = {KEY.shift_s(definition.scope, f"P{n}") for definition in TRAINS for n in range(200)}
    assert len(shifts) == 600
    assert min(shifts) >= 86_400
    assert max(shifts) <= 365 * 86_400
    assert max(shifts) - min(shifts) > 300 * 86_400


def test_uids_are_mapped_alike_within_a_train_and_the_standards_own_stay() -> None:
    one, two = KEY.uid_key(TRAINS[0].scope), KEY.uid_key(TRAINS[1].scope)
    assert map_uid(one, "2.25.5") == map_uid(one, "2.25.5") != map_uid(two, "2.25.5")
    assert re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", map_uid(one, "2.25.5"))
    assert map_uid(one, "1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"


def test_damaged_files_cost_their_case_and_say_nothing_else(sources: list[CaseSource]) -> None:
    data = sources[0].files[0].path.read_bytes()
    decoder = Decoder(timeout_s=300)
    try:
        for damaged in (b"", b"%PDF" * 99, data[:200], data[:140] + b"\xff" * 60 + data[200:]):
            with pytest.raises(UnusableImage) as caught:
                decoder.rekey(damaged, bytes(32), "p1", 86_400)
            assert caught.value.reason in {Unusable.NOT_DICOM, Unusable.TRANSFER_SYNTAX}
        assert dcmread(BytesIO(decoder.rekey(data, bytes(32), "p1", 86_400))).PatientID == "p1"
    finally:
        decoder.close()
