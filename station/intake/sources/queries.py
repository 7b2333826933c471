"""What is asked of a PACS by C-FIND and what it answers, as values: studies, series, instances. Pure; `pacs_client` asks.

A PACS may ignore a key and answer with everything it has. So an answer counts only if it matches what was asked, looked at here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset

from policies.errors import DataError, UsageError
from station.intake.csv_reader import CsvError
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.pseudonymisation.reading import FAULTS

MAX_ACCESSIONS = 100_000
MAX_LIST_BYTES = 16 << 20
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
# No wildcard and no backslash: an accession that matches all studies would fetch all studies.
_ACCESSION = re.compile(r"[^\x00-\x1f\x7f*?\\]{1,16}")
_DAY = re.compile(r"[0-9]{8}")


@dataclass(frozen=True, slots=True)
class StudyCriteria:
    """Which studies are meant, when they are not named by accession.

    Attributes:
        first: the first Study Date.
        last: the last one, inclusive.
        modalities: at least one of these stands in the study.
        body_part: of the series that are wanted; any where empty.
    """

    first: date
    last: date
    modalities: tuple[str, ...]
    body_part: str = ""

    def __post_init__(self) -> None:
        """Refuse what no PACS could be asked."""
        if self.last < self.first:
            raise UsageError("the period ends before it begins")
        if not self.modalities or not all(_CODE.fullmatch(code) for code in self.modalities):
            raise UsageError("a modality is a DICOM code such as CT")
        if self.body_part and not _CODE.fullmatch(self.body_part):
            raise UsageError("a body part is a DICOM code such as CHEST")


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study that the PACS has; identified."""

    study_uid: str
    accession: str
    study_date: str


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series that the PACS has; `instances` is None where it does not say how many."""

    series_uid: str
    modality: str
    body_part: str
    instances: int | None


def accession_list(data: bytes) -> tuple[str, ...]:
    """Read accession numbers: one a line, or a CSV file with a column `accession`; each once, in their order.

    Raises:
        CsvError: naming the line, never the value.
        DataError: there are none, or too many.
    """
    if len(data) > MAX_LIST_BYTES:
        raise DataError(f"the list is over {MAX_LIST_BYTES} bytes")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CsvError("accessions", 1, None, "is not UTF-8 text") from None
    column, start = 0, 0
    header = [name.strip().strip('"').lower() for name in re.split("[,;]", lines[0])] if lines else []
    if "accession" in header:
        column, start = header.index("accession"), 1
    elif len(header) > 1:
        raise CsvError("accessions", 1, "accession", "the column is missing")
    found: dict[str, None] = {}
    for number, line in enumerate(lines[start:], start=start + 1):
        fields = [field.strip().strip('"') for field in re.split("[,;]", line)] if start else [line.strip()]
        if not any(fields):
            continue
        if len(fields) <= column or not _ACCESSION.fullmatch(fields[column]):
            raise CsvError("accessions", number, "accession", "is no accession number of 1 to 16 characters")
        found[fields[column]] = None
    if not found or len(found) > MAX_ACCESSIONS:
        raise DataError(f"the list holds {len(found)} accession numbers; 1 to {MAX_ACCESSIONS} are possible")
    return tuple(found)


def studies_by_accession(accession: str) -> Dataset:
    """Return the identifier that asks for the studies of one accession number."""
    return _study_identifier(AccessionNumber=accession, StudyDate="")


def studies_of_day(day: date, modality: str) -> Dataset:
    """Return the identifier that asks for the studies of one day with one modality."""
    return _study_identifier(StudyDate=f"{day:%Y%m%d}", ModalitiesInStudy=modality, AccessionNumber="")


def series_of_study(study_uid: str) -> Dataset:
    """Return the identifier that asks for a study's series."""
    identifier = _identifier("SERIES", StudyInstanceUID=study_uid)
    identifier.SeriesInstanceUID = identifier.Modality = identifier.BodyPartExamined = ""
    identifier.NumberOfSeriesRelatedInstances = None
    return identifier


def instances_of_series(study_uid: str, series_uid: str, *, kinds: bool = False) -> Dataset:
    """Return the identifier that asks for a series' instances, and of which kind (SOP Class) they are."""
    identifier = _identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
    identifier.SOPInstanceUID = ""
    if kinds:
        identifier.SOPClassUID = ""
    return identifier


def instances_to_retrieve(study_uid: str, series_uid: str, sop_instance_uids: list[str]) -> Dataset:
    """Return the identifier that retrieves some instances of a series."""
    identifier = _identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
    identifier.SOPInstanceUID = sop_instance_uids
    return identifier


def series_to_retrieve(study_uid: str, series_uid: str) -> Dataset:
    """Return the identifier that retrieves one series."""
    return _identifier("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)


def read_studies(
    answers: Iterable[Dataset], *, accession: str = "", day: date | None = None
) -> list[FoundStudy]:
    """Return the studies in answers that are what was asked for, each once.

    Raises:
        PacsError: an answer cannot be read.
    """
    studies = {}
    for answer in answers:
        study = FoundStudy(
            _uid(answer, "StudyInstanceUID"), _text(answer, "AccessionNumber"), _text(answer, "StudyDate")
        )
        if accession and study.accession != accession:
            continue
        if day is not None and study.study_date != f"{day:%Y%m%d}":
            continue
        studies[study.study_uid] = study
    return list(studies.values())


def read_series(answers: Iterable[Dataset], study_uid: str) -> list[FoundSeries]:
    """Return a study's series; as `read_studies`."""
    series = {}
    for answer in answers:
        if _text(answer, "StudyInstanceUID") not in {"", study_uid}:
            continue
        count = _text(answer, "NumberOfSeriesRelatedInstances")
        one = FoundSeries(
            _uid(answer, "SeriesInstanceUID"),
            _text(answer, "Modality"),
            _text(answer, "BodyPartExamined"),
            int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None,
        )
        series[one.series_uid] = one
    return list(series.values())


def read_instances(answers: Iterable[Dataset], series_uid: str) -> dict[str, str]:
    """Return the SOP Class UID of each SOP Instance UID of a series, empty where it is not told; as `read_studies`."""
    return {
        _uid(answer, "SOPInstanceUID"): _text(answer, "SOPClassUID")
        for answer in answers
        if _text(answer, "SeriesInstanceUID") in {"", series_uid}
    }


def _study_identifier(**keys: str) -> Dataset:
    identifier = _identifier("STUDY", **keys)
    identifier.StudyInstanceUID = ""
    return identifier


def _identifier(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _text(answer: Dataset, keyword: str) -> str:
    try:
        value = answer.get(keyword)
        return "" if value is None else str(value).strip()
    except FAULTS:
        pass
    raise PacsError(PacsFault.ANSWER_UNUSABLE)


def _uid(answer: Dataset, keyword: str) -> str:
    uid = _text(answer, keyword)
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise PacsError(PacsFault.ANSWER_UNUSABLE)
    return uid
