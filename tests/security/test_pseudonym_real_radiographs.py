"""All shared radiographs and CT slices: nothing of the patient that stood in a file stands in what comes out of it."""

import re
from pathlib import Path

import pytest
from pseudonym_files import fixed_key, reread
from pydicom.dataset import Dataset

from station.pseudonymisation import Pseudonymiser, PseudonymKey

PROJECT = "registry"
_WORD = re.compile(r"[^\W_]{4,}")
# Words of identifying attributes that are words of the trade too.
_TRADE = {"thorax", "chest", "removed", "array"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PseudonymKey:
    return fixed_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def files(shared_data: Path) -> list[Path]:
    found = [*sorted(shared_data.glob("cxr/*/dicom/*.dcm")), *sorted(shared_data.glob("ct/lung*/*.dcm"))]
    assert len(found) >= 240
    return found


def originals(dataset: Dataset) -> tuple[set[str], set[str]]:
    """Every identifying value whole, and every word of a name, comment or private text."""
    whole: set[str] = set()
    words: set[str] = set()
    for element in dataset.iterall():
        if element.VR in {"DA", "DT", "TM", "UI"} or element.keyword in {
            "PatientID",
            "AccessionNumber",
            "StudyID",
        }:
            values = element.value if element.VM > 1 else [element.value]
            whole.update(
                str(value) for value in values if value and not str(value).startswith("1.2.840.10008.")
            )
        if element.VR in {"PN", "ST", "LT", "UT"} or element.tag.is_private or element.tag >> 16 == 0x0010:
            words.update(word.casefold() for word in _WORD.findall(str(element.value)))
    words.update(word.casefold() for word in _WORD.findall(str(dataset.get("InstitutionName", ""))))
    whole.update(
        str(dataset.get(word)) for word in ("OtherPatientIDs", "DeviceSerialNumber") if dataset.get(word)
    )
    # The makers' names are kept, and stand in the names of their private blocks too.
    maker = {word.casefold() for word in _WORD.findall(str(dataset.get("Manufacturer", "")))}
    return {value for value in whole if len(value) >= 4}, words - _TRADE - maker


def header_of(output: bytes) -> bytes:
    """The file without its pixels, whose bytes may look like anything."""
    at = output.rindex(b"\xe0\x7f\x10\x00")
    return output[:at]


def stands_in(value: str, text: str) -> bool:
    """As a value or a word of one: new UIDs are long random numbers, in which short ones stand by chance."""
    return re.search(rf"(?<![0-9a-z]){re.escape(value.casefold())}(?![0-9a-z])", text) is not None


def test_nothing_identifying_survives(files: list[Path], key: PseudonymKey) -> None:
    engine = Pseudonymiser(key, PROJECT)
    leaked: list[str] = []
    for path in files:
        data = path.read_bytes()
        dataset = reread(data)
        output = engine.pseudonymise(dataset).encode()
        header = header_of(output)
        text = header.decode("ascii", "replace").casefold()
        whole, words = originals(reread(data))
        own = set(_WORD.findall(text))
        found = [value for value in whole if stands_in(value, text)] + [word for word in words if word in own]
        if found:
            leaked.append(f"{path.name}: {len(found)} values")
        assert reread(output).PixelData == reread(data).PixelData
    assert leaked == []


def test_pseudonyms_agree_within_a_patient_and_never_across(files: list[Path], key: PseudonymKey) -> None:
    engine = Pseudonymiser(key, PROJECT)
    patients: dict[tuple[str, str], set[str]] = {}
    studies: dict[str, set[str]] = {}
    for path in files:
        dataset = reread(path.read_bytes())
        made = engine.pseudonymise(dataset)
        patients.setdefault(engine.patient_identity(dataset), set()).add(made.patient)
        studies.setdefault(str(dataset.StudyInstanceUID), set()).add(made.study_uid)
    assert all(len(found) == 1 for found in (*patients.values(), *studies.values()))
    assert len({next(iter(found)) for found in patients.values()}) == len(patients)
    assert len({next(iter(found)) for found in studies.values()}) == len(studies)


def test_intervals_between_the_studies_of_a_patient_are_exact(files: list[Path], key: PseudonymKey) -> None:
    from datetime import datetime

    def moment(dataset: Dataset) -> datetime:
        return datetime.strptime(f"{dataset.StudyDate}{str(dataset.StudyTime)[:6]}", "%Y%m%d%H%M%S")  # noqa: DTZ007

    engine = Pseudonymiser(key, PROJECT)
    shifts: dict[str, set[float]] = {}
    for path in files:
        dataset = reread(path.read_bytes())
        made = engine.pseudonymise(dataset)
        shift = moment(dataset) - moment(reread(made.encode()))
        shifts.setdefault(made.patient, set()).add(shift.total_seconds())
    assert all(len(found) == 1 for found in shifts.values())
    assert len({next(iter(found)) for found in shifts.values()}) > len(shifts) // 2
    assert all(24 * 3600 < next(iter(found)) <= 366 * 24 * 3600 for found in shifts.values())
