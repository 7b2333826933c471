"""One patient of a frozen cohort, laid out alone."""

import json
import os
from pathlib import Path

import pytest
from map_kit import PATIENTS, frozen

from policies.documents import canonical_json
from policies.errors import StateError
from policies.splits import Split
from station.cohorts import FrozenCohort, PatientFolders, wipe
from station.cohorts.layout import EPOCH_S


@pytest.fixture
def cohort(tmp_path: Path) -> FrozenCohort:
    return frozen(tmp_path)


def test_each_patient_has_a_folder_of_the_cohorts_form_with_nothing_of_another(cohort: FrozenCohort) -> None:
    folders = PatientFolders(cohort)
    assert folders.patients == len(PATIENTS)
    for one in folders.shuffled():
        folder = folders.lay(one)
        assert one.patient not in str(folder)
        content = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
        for other in PATIENTS:
            assert (other.encode() in content) == (other == one.patient)
        listed = json.loads((folder / "datalist.json").read_bytes())
        assert [entry["patient"] for entry in listed["training"]] == [one.patient]
        assert listed["validation"] == listed["testing"] == []
        assert listed["labels"] == {}
        for path in [folder, *folder.rglob("*")]:
            at = path.stat()
            assert at.st_mode & 0o222 == 0
            assert at.st_mtime == EPOCH_S
        image = folder / listed["training"][0]["image"]
        assert image.stat().st_ino != (cohort.path / listed["training"][0]["image"]).stat().st_ino
        folders.remove(folder)
        assert not folder.exists()
        folders.remove(folder)
    cohort.verify()


def test_folders_of_a_case_and_label_maps_come_along(tmp_path: Path) -> None:
    made = frozen(tmp_path)
    for folder, _, _ in os.walk(made.path):
        Path(folder).chmod(0o755)
    (made.path / "datalist.json").chmod(0o644)
    for number, patient in enumerate(PATIENTS):
        for place in (f"dicom/case{patient}", f"dicom/other{patient}"):
            (made.path / place).mkdir(parents=True)
            (made.path / place / "0001.dcm").write_text(f"slice of {patient} {number}")
        (made.path / "labels").mkdir(exist_ok=True)
        (made.path / "labels" / f"case{patient}.nii").write_text(f"mask of {patient}")
    listed = json.loads((made.path / "datalist.json").read_bytes())
    listed["training"] = []
    listed["validation"] = [
        {"image": f"dicom/{name}{patient}", "label": f"labels/case{patient}.nii", "case": f"{name}{patient}", "patient": patient}
        for patient in PATIENTS
        for name in ("case", "other")
    ]  # fmt: skip
    for entry in listed["validation"][1::2]:
        del entry["label"]
    listed["labels"] = {"0": "background", "1": "lung"}
    (made.path / "datalist.json").write_bytes(canonical_json(listed))
    (made.path / "cohort.json").chmod(0o644)
    (made.path / "cohort.json").write_bytes(
        canonical_json({"counts_rounded": {}, "masks": {"dtype": "uint8"}})
    )
    folders = PatientFolders(made)
    one = next(folders.shuffled())
    folder = folders.lay(one)
    assert one.split is Split.VALIDATION
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "clinical.csv", "cohort.json", "datalist.json",
        f"dicom/case{one.patient}/0001.dcm", f"dicom/other{one.patient}/0001.dcm", f"labels/case{one.patient}.nii",
    ]  # fmt: skip
    assert json.loads((folder / "datalist.json").read_bytes())["labels"]["1"] == "lung"


def test_what_a_crash_left_goes_with_the_cohort(cohort: FrozenCohort) -> None:
    folders = PatientFolders(cohort)
    folder = folders.lay(next(folders.shuffled()))
    wipe(cohort)
    assert not folder.exists()


def test_a_cohort_without_its_documents_is_refused(cohort: FrozenCohort) -> None:
    cohort.path.chmod(0o755)
    (cohort.path / "clinical.csv").unlink()
    with pytest.raises(StateError):
        PatientFolders(cohort)
