"""From the hospitals' DICOM to a frozen cohort, through the real intake, handover log, catalogue and decoders."""

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cohort_files import DEFINITION
from intake_kit import fixed_intake
from numpy.typing import NDArray

from policies.manifest import TrainKind
from policies.policy import ConsentMode
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from station.catalogue import Catalogue
from station.cohorts import CohortKey, FrozenCohort, freeze
from station.handover import load_public_key
from station.intake.intake import Intake
from station.intake.settings import IntakeSettings
from station.pseudonymisation.pixels.settings import PixelSettings
from station.storage import open_database

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
COLLECTION = "chest-radiographs"
OFFERED = {COLLECTION: ConsentMode.OPT_IN}
LIMIT = timedelta(days=7)
KEY = CohortKey(bytes(range(32)))
# What is masked in a film is tested where films are inspected; here every grey value is compared.
AS_THEY_ARE = IntakeSettings(pixels=PixelSettings(inspect="off"))


@pytest.fixture(scope="module", params=HOSPITALS)
def hospital(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    return shared_data / "cxr" / str(request.param)


@pytest.fixture(scope="module")
def home(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp(hospital.name)
    with Intake(fixed_intake(home), AS_THEY_ARE) as intake:
        intake.import_folder(hospital / "dicom", COLLECTION)
        intake.import_clinical(hospital / "ecrf.csv", COLLECTION)
        intake.import_consent(hospital / "consent.csv")
    return home


@pytest.fixture(scope="module")
def catalogue(home: Path) -> Iterator[Catalogue]:
    with closing(open_database(home / "station.db")) as database:
        catalogue = Catalogue(
            database, home / "handover", load_public_key(home / "handover" / "handover.pub")
        )
        catalogue.sync()
        yield catalogue


def frozen(
    catalogue: Catalogue, home: Path, kind: TrainKind, fields: tuple[str, ...] = ("pneumonia", "sex")
) -> FrozenCohort:
    definition = DEFINITION.model_copy(
        update={"kind": kind, "minimum_patients": 5, "clinical_fields": fields}
    )
    chosen = catalogue.cases(definition, OFFERED, LIMIT, datetime.now(UTC))
    assert not isinstance(chosen, Refused)
    result = freeze(definition, chosen, home / "cohorts", KEY)
    assert isinstance(result, FrozenCohort)
    return result


def pixels(path: Path) -> NDArray[np.uint16]:
    data = path.read_bytes()
    width, height = np.frombuffer(data, dtype="<i2", count=2, offset=42)
    return np.frombuffer(data, dtype="<u2", offset=352).reshape(height, width)


def originals(hospital: Path) -> Iterator[tuple[pydicom.Dataset, bytes]]:
    """Each file with the grey values that its cohort image must have."""
    for path in sorted((hospital / "dicom").iterdir()):
        dataset = pydicom.dcmread(path)
        high = 2**dataset.BitsStored - 1
        stored = dataset.pixel_array.astype(np.float64)
        grey = (high - stored if dataset.PhotometricInterpretation == "MONOCHROME1" else stored) / high
        yield dataset, np.rint(grey * 65535).astype("<u2").tobytes()


@pytest.mark.shared_data
def test_every_consenting_patient_is_in_exactly_one_split(
    hospital: Path, catalogue: Catalogue, home: Path
) -> None:
    with (hospital / "consent.csv").open() as file:
        consenting = [row for row in csv.DictReader(file) if row["decision"] == "consent"]
    training = frozen(catalogue, home, TrainKind.TRAINING)
    evaluation = frozen(catalogue, home, TrainKind.EVALUATION)
    assert not training.left_out
    assert not evaluation.left_out
    assert not training.patients & evaluation.patients
    assert len(training.patients | evaluation.patients) == len(consenting)
    assert not training.patients_by_split[Split.TRAINING] & training.patients_by_split[Split.VALIDATION]
    training.verify()
    again = frozen(catalogue, home, TrainKind.TRAINING)
    assert again.digest == training.digest


@pytest.mark.shared_data
def test_the_grey_values_are_those_of_the_files(hospital: Path, catalogue: Catalogue, home: Path) -> None:
    """Lossless codecs and these files' full-range windows keep every value; MONOCHROME1 is inverted."""
    expected = {grey for _, grey in originals(hospital)}
    cohort = frozen(catalogue, home, TrainKind.TRAINING)
    found = [pixels(path).tobytes() for path in (cohort.path / "images").iterdir()]
    assert len(found) == sum(cohort.images_by_split.values())
    assert set(found) <= expected


@pytest.mark.shared_data
def test_a_chest_looks_like_a_chest(catalogue: Catalogue, home: Path) -> None:
    """The abdomen below is brighter than the lungs: upright, and white is dense, in all three hospitals."""
    cohort = frozen(catalogue, home, TrainKind.TRAINING)
    mean = np.mean([pixels(path) for path in (cohort.path / "images").iterdir()], axis=0) / 65535
    lungs = (mean[80:140, 50:90].mean() + mean[80:140, 166:206].mean()) / 2
    assert mean[220:250, 80:176].mean() > lungs + 0.05
    assert mean[80:200, 118:138].mean() > lungs + 0.05


@pytest.mark.shared_data
def test_labels_come_from_the_right_study(hospital: Path, catalogue: Catalogue, home: Path) -> None:
    with (hospital / "ecrf.csv").open() as file:
        rows = {(row["patient_id"], row["accession"]): row for row in csv.DictReader(file)}
    truth = {}
    for dataset, grey in originals(hospital):
        row = rows[dataset.PatientID, dataset.AccessionNumber]
        truth[grey] = (int(row["pneumonia"]), row["sex"])
    cohort = frozen(catalogue, home, TrainKind.TRAINING)
    datalist = json.loads((cohort.path / "datalist.json").read_text())
    with (cohort.path / "clinical.csv").open() as file:
        table = {row["case"]: row for row in csv.DictReader(file)}
    for entry in (*datalist["training"], *datalist["validation"]):
        label, sex = truth[pixels(cohort.path / entry["image"]).tobytes()]
        assert (entry["label"], table[entry["case"]]["sex"]) == (label, sex)


@pytest.mark.shared_data
def test_nothing_identified_reaches_the_cohort(hospital: Path, catalogue: Catalogue, home: Path) -> None:
    cohort = frozen(catalogue, home, TrainKind.TRAINING)
    documents = b"".join(path.read_bytes() for path in cohort.path.iterdir() if path.is_file())
    headers = b"".join(path.read_bytes()[:352] for path in (cohort.path / "images").iterdir())
    names = " ".join(path.name for path in (cohort.path / "images").iterdir()).encode()
    for path in sorted((hospital / "dicom").iterdir()):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        for value in (
            str(dataset.PatientID),
            str(dataset.PatientName).split("^")[0],
            dataset.AccessionNumber,
            dataset.SOPInstanceUID,
            path.stem,
        ):
            assert value.encode() not in documents + headers + names
    assert b"2.25." not in documents + headers + names
    for patient in cohort.patients:
        assert patient.encode() not in documents + headers + names


@pytest.mark.shared_data
def test_a_withdrawal_takes_the_patient_out_and_moves_nobody_else(hospital: Path, tmp_path: Path) -> None:
    paths = fixed_intake(tmp_path)
    with Intake(paths, AS_THEY_ARE) as intake, closing(open_database(tmp_path / "station.db")) as database:
        intake.import_folder(hospital / "dicom", COLLECTION)
        intake.import_clinical(hospital / "ecrf.csv", COLLECTION)
        intake.import_consent(hospital / "consent.csv")
        catalogue = Catalogue(database, tmp_path / "handover", load_public_key(paths.handover_public_key))
        catalogue.sync()
        before = frozen(catalogue, tmp_path, TrainKind.TRAINING)
        register = (hospital / "consent.csv").read_text().splitlines()
        withdrawn = [
            line.replace(",consent,", ",objection,") if n % 5 == 1 else line
            for n, line in enumerate(register)
        ]
        intake.import_consent("\n".join(withdrawn).encode() + b"\n")
        assert catalogue.sync().consent
        after = frozen(catalogue, tmp_path, TrainKind.TRAINING)
        assert after.patients < before.patients
        for split in Split:
            assert after.patients_by_split[split] == before.patients_by_split[split] & after.patients
        late = datetime.now(UTC) + timedelta(days=8)
        refused = catalogue.cases(DEFINITION, OFFERED, LIMIT, late)
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.CONSENT_STALE
