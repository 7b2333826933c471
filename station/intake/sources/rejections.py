"""Rejection notes of IHE IOCM: a Key Object Selection whose title says why the instances it names must not be used.

(Integrating the Healthcare Enterprise, Radiology Technical Framework, Imaging Object Change Management, RAD-66.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from station.intake.sources.stored import NotUnderstoodError
from station.pseudonymisation.reading import FAULTS

REJECTION_TITLES = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Codes of CID 7011, coding scheme DCM."""

MAX_NOTE_BYTES = 16 << 20
_MOST_INSTANCES = 100_000


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a rejection note says.

    Attributes:
        code: of `REJECTION_TITLES`.
        sop_instance_uids: the instances it names, as they are called at the source.
    """

    code: str
    sop_instance_uids: frozenset[str]


def read_rejection(data: bytes) -> Rejection:
    """Read a rejection note.

    Raises:
        NotUnderstoodError: it is another document than a rejection note, names nothing, or is too long.
    """
    rejection: Rejection | None = None
    if len(data) <= MAX_NOTE_BYTES:
        try:
            rejection = _rejection(dcmread(BytesIO(data)))
        except FAULTS:
            rejection = None
    if rejection is None:
        # Outside the handler: the library's error quotes the file.
        raise NotUnderstoodError("a key object selection is not a rejection note that can be read")
    return rejection


def _rejection(dataset: Dataset) -> Rejection | None:
    titles = dataset.get("ConceptNameCodeSequence") or []
    codes = [str(item.get("CodeValue", "")) for item in titles if item.get("CodingSchemeDesignator") == "DCM"]
    code = next((code for code in codes if code in REJECTION_TITLES), None)
    uids = frozenset(_evidence(dataset))
    if code is None or not uids or len(uids) > _MOST_INSTANCES:
        return None
    return Rejection(code, uids)


def _evidence(dataset: Dataset) -> Iterator[str]:
    """Return what stands in Current Requested Procedure Evidence (PS3.3 C.17.6.2): every instance that is referred to."""
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        for series in study.get("ReferencedSeriesSequence") or []:
            for reference in series.get("ReferencedSOPSequence") or []:
                uid = str(reference.get("ReferencedSOPInstanceUID") or "")
                if uid:
                    yield uid
