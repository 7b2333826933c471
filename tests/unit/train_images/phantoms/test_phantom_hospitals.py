"""The made-up hospitals: shaped as real ones, taken in by the real intake, and worth learning from."""

import csv
import hashlib
import secrets
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from policies.manifest import Modality, TrainKind
from policies.policy import ConsentMode, ConsentPurpose
from policies.splits import Split
from station.catalogue.catalogue import Catalogue
from station.cohorts import CohortDefinition, CohortKey, FrozenCohort, freeze
from station.handover import load_public_key
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.pseudonymisation.keys import PseudonymKey
from station.storage import open_database
from train_images.phantoms import generate_hospitals

ECRF = ["patient_id", "accession", "pneumonia", "sex", "birth_date", "temperature_c", "crp_mg_l", "smoker"]
CONSENT = ["patient_id", "decision", "purpose", "date"]
COLLECTION = "thorax-cxr"


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    generate_hospitals(out, hospitals=3, patients=60, seed=3)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_hospital_has_the_shape_of_the_shared_data(hospitals: Path) -> None:
    for letter in "abc":
        folder = hospitals / f"hospital-{letter}"
        images = list((folder / "dicom").glob("*.dcm"))
        ecrf, consent = rows(folder / "ecrf.csv"), rows(folder / "consent.csv")
        assert list(ecrf[0]) == ECRF
        assert list(consent[0]) == CONSENT
        assert len(images) == len(ecrf) > 60
        assert len(consent) == 60
        assert {row["decision"] for row in consent} == {"consent", "objection"}
        assert max(Counter(row["patient_id"] for row in ecrf).values()) > 1


@pytest.mark.parametrize(
    ("letter", "syntax", "bits", "photometric"),
    [
        ("a", ExplicitVRLittleEndian, 8, "MONOCHROME2"),
        ("b", JPEG2000Lossless, 12, "MONOCHROME2"),
        ("c", JPEGLSLossless, 12, "MONOCHROME1"),
    ],
)
def test_each_hospital_writes_in_its_own_way(
    hospitals: Path, letter: str, syntax: str, bits: int, photometric: str
) -> None:
    for path in (hospitals / f"hospital-{letter}" / "dicom").glob("*.dcm"):
        dataset = dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert (dataset.BitsStored, dataset.PhotometricInterpretation, dataset.Modality) == (
            bits,
            photometric,
            "DX",
        )
        assert dataset.pixel_array.shape == (dataset.Rows, dataset.Columns)


def test_patients_are_named_in_nested_and_private_places_too(hospitals: Path) -> None:
    path = next((hospitals / "hospital-a" / "dicom").glob("*.dcm"))
    dataset = dcmread(path)
    telling = {str(dataset.PatientID), str(dataset.PatientName.family_name)}
    top = {id(element) for element in dataset}
    found = [
        element
        for element in dataset.iterall()
        if element.VR != "SQ" and any(text in str(element.value) for text in telling)
    ]
    assert any(element.tag.is_private for element in found)
    assert any(id(element) not in top for element in found), "none is nested"
    assert len(found) >= 4


def test_the_same_seed_makes_the_same_bytes(hospitals: Path, tmp_path: Path) -> None:
    generate_hospitals(tmp_path, hospitals=1, patients=60, seed=3)
    again = sorted((tmp_path / "hospital-a").rglob("*.*"))
    assert again
    for path in again:
        other = hospitals / path.relative_to(tmp_path)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def definition(kind: TrainKind) -> CohortDefinition:
    return CohortDefinition(
        kind=kind,
        policy_id="p",
        policy_version=1,
        manifest_digest="sha256:" + "0" * 64,
        collections=(COLLECTION,),
        consent_purposes=(ConsentPurpose.RESEARCH_PARTICIPANTS,),
        consent_modes=(ConsentMode.OPT_IN,),
        modalities=(Modality.DX,),
        profile="thorax-1@1",
        clinical_fields=("pneumonia",),
        label="pneumonia",
        minimum_patients=5,
    )


def thumbnails(cohort: FrozenCohort, split: Split) -> tuple[np.ndarray, np.ndarray]:
    import json

    cases = json.loads((cohort.path / "datalist.json").read_text())[split.value]
    found = []
    for case in cases:
        pixels = np.asarray(nibabel.load(cohort.path / case["image"]).dataobj, np.float64).squeeze()
        side = pixels.shape[0] // 8, pixels.shape[1] // 8
        small = pixels[: side[0] * 8, : side[1] * 8].reshape(8, side[0], 8, side[1]).mean((1, 3)).ravel()
        found.append((small - small.mean()) / small.std())
    return np.stack(found), np.array([case["label"] for case in cases], float)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    return float(
        np.mean(positive[:, None] > negative[None, :]) + 0.5 * np.mean(positive[:, None] == negative[None, :])
    )


def give_key(paths: IntakePaths, letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that follows from the hospital's letter: which patients are tested on follows from their pseudonyms."""
    paths.pseudonym_key.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(secrets, "token_bytes", lambda count: letter.encode() * count)
        PseudonymKey.generate(paths.pseudonym_key, now=datetime.now(UTC))


def test_intake_takes_all_of_them_and_a_simple_probe_learns_the_finding(
    hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, key = datetime.now(UTC), CohortKey(b"k" * 32)
    train, test = [], []
    for letter in "abc":
        source, home = hospitals / f"hospital-{letter}", tmp_path / letter
        home.mkdir()
        paths = init_intake(home)
        give_key(paths, letter, monkeypatch)
        with Intake(paths) as intake:
            intake.import_consent(source / "consent.csv")
            report = intake.import_folder(source / "dicom", COLLECTION)
            intake.import_clinical(source / "ecrf.csv", COLLECTION)
        assert not report.quarantined
        assert report.accepted == len(list((source / "dicom").glob("*.dcm")))
        database = open_database(home / "station.db")
        catalogue = Catalogue(database, paths.handover, load_public_key(paths.handover_public_key))
        catalogue.sync()
        for kind, split, into in (
            (TrainKind.TRAINING, Split.TRAINING, train),
            (TrainKind.EVALUATION, Split.TESTING, test),
        ):
            cases = catalogue.cases(
                definition(kind),
                {COLLECTION: ConsentMode.OPT_IN},
                now - datetime(2000, 1, 1, tzinfo=UTC),
                datetime.now(UTC),
            )
            assert isinstance(cases, tuple)
            cohort = freeze(definition(kind), cases, home / "cohorts", key)
            assert isinstance(cohort, FrozenCohort)
            assert not cohort.left_out
            assert len(cohort.patients_by_split[split]) >= 5
            into.append(thumbnails(cohort, split))
        database.close()
    inputs, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    # Ridge regression: the simplest thing that learns.
    weights = np.linalg.solve(inputs.T @ inputs + 30 * np.eye(64), inputs.T @ (labels - labels.mean()))
    test_inputs, test_labels = (np.concatenate(parts) for parts in zip(*test, strict=True))
    assert len(test_labels) >= 30
    assert auc(test_inputs @ weights, test_labels) > 0.7
