"""Whether a face could be rebuilt from the series an instance belongs to. Looks at the header alone; claims no cleaning.

A thin-sliced CT of the head renders to a recognizable face (Schwarz et al., N Engl J Med 2019;381:1684). Files are judged one by
one, so a series is as recognizable as what its own header admits; where the header does not name the body part, words of the
protocol decide, and where nothing does, nobody knows.
"""

import re

from pydicom.dataset import Dataset

THIN_MM = 3.0
_HEAD = frozenset({"HEAD", "FACE", "BRAIN", "SKULL", "SINUS", "ORBIT", "ORBITS", "MAXILLA", "MANDIBLE", "TMJ", "EAR", "NOSE", "HEADNECK", "NECK", "WHOLEBODY"})  # fmt: skip
_ELSEWHERE = frozenset({"CHEST", "ABDOMEN", "PELVIS", "THORAX", "LUNG", "HEART", "LSPINE", "TSPINE", "EXTREMITY", "KNEE", "HIP", "FOOT", "HAND", "LIVER"})  # fmt: skip
_HEAD_WORDS = re.compile(
    r"\b(head|hoofd|skull|schedel|brain|hersen\w*|cerebr\w*|face|facial|aangezicht|sinus\w*|orbit\w*|neck|hals|mandib\w*|maxill\w*|whole ?body)",
    re.IGNORECASE,
)
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")


def recognizable_face(ds: Dataset) -> bool | None:
    """Tell whether a face could be rebuilt.

    1. Only CT renders to a face here; a film shows none.
    2. Slices thicker than `THIN_MM` do not either; a thickness that is not said counts as thin.
    3. A body part that holds the face, or a protocol that names one: yes. Another body part: no.
    4. Neither: None.
    """
    if str(ds.get("Modality") or "").strip() != "CT":
        return False
    thickness = _millimetres(ds)
    if thickness is not None and thickness > THIN_MM:
        return False
    part = re.sub(r"[^A-Z]", "", str(ds.get("BodyPartExamined") or "").upper())
    words = " ".join(str(ds.get(keyword) or "") for keyword in _DESCRIPTIONS)
    if part in _HEAD or _HEAD_WORDS.search(words):
        return True
    return False if part in _ELSEWHERE else None


def _millimetres(ds: Dataset) -> float | None:
    try:
        value = float(str(ds.get("SliceThickness")))
    except ValueError:
        return None
    return value if value > 0 else None
