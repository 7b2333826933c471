"""Whether a face could be rebuilt from the series an instance belongs to. Looks at the header alone; claims no cleaning.

A thin-sliced CT of the head renders to a recognizable face (Schwarz et al., N Engl J Med 2019;381:1684). Files are judged one by
one, so a series is as recognizable as what its own header admits; where the header does not name the body part, words of the
protocol decide, and where nothing does, nobody knows.
"""

import re

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

THIN_MM = 3.0
_PROJECTIONS = frozenset({"CR", "DX", "DR", "RF", "MG", "IO", "PX", "XA"})
_HEAD = ("HEAD", "FACE", "FACIAL", "BRAIN", "SKULL", "SINUS", "ORBIT", "MAXILLA", "MANDIBLE", "JAW", "TMJ", "EYE", "NOSE", "NECK", "IAC", "TEMPORALBONE", "PITUITARY", "WHOLEBODY", "CEREBR")  # fmt: skip
_EARS = frozenset({"EAR", "EARS", "CSPINE", "CERVICALSPINE"})
"""Whole words: HEART has an EAR in it."""
_ELSEWHERE = frozenset({"CHEST", "ABDOMEN", "PELVIS", "THORAX", "LUNG", "HEART", "LSPINE", "TSPINE", "EXTREMITY", "KNEE", "HIP", "FOOT", "HAND", "LIVER"})  # fmt: skip
_HEAD_WORDS = re.compile(
    r"\b(head|hoofd|skull|schedel|brain|hersen\w*|cerebr\w*|face|facial|aangezicht|sinus\w*|orbit\w*|neck|hals|mandib\w*|maxill\w*|whole ?body)",
    re.IGNORECASE,
)
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")


def recognizable_face(ds: Dataset) -> bool | None:
    """Tell whether a face could be rebuilt.

    1. A projection shows none; CT renders to a face; of other modalities nobody knows here.
    2. Slices thicker than `THIN_MM` do not render to one; a thickness that is not said counts as thin.
    3. A body part or region that holds the face, or a protocol that names one: yes. Another body part: no.
    4. Neither: None.
    """
    modality = str(ds.get("Modality") or "").strip().upper()
    if modality in _PROJECTIONS:
        return False
    if modality != "CT":
        return None
    thickness = _millimetres(ds)
    if thickness is not None and thickness > THIN_MM:
        return False
    parts = [re.sub(r"[^A-Z]", "", text.upper()) for text in _body_parts(ds)]
    words = " ".join(str(ds.get(keyword) or "") for keyword in _DESCRIPTIONS).replace("_", " ")
    if any(_shows_a_head(part) for part in parts) or _HEAD_WORDS.search(words):
        return True
    return False if any(part in _ELSEWHERE for part in parts) else None


def _body_parts(ds: Dataset) -> list[str]:
    regions = ds.get("AnatomicRegionSequence")
    named = [str(item.get("CodeMeaning") or "") for item in regions] if isinstance(regions, Sequence) else []
    return [str(ds.get("BodyPartExamined") or ""), *named]


def _shows_a_head(part: str) -> bool:
    return part in _EARS or any(word in part for word in _HEAD)


def _millimetres(ds: Dataset) -> float | None:
    try:
        value = float(str(ds.get("SliceThickness")))
    except ValueError:
        return None
    return value if value > 0 else None
