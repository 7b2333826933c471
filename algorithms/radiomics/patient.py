"""From a patient's scans and their label maps to one row."""

from typing import Final

from algorithms.one_patient import Patient, Scan, Volume, upright
from algorithms.one_patient.program import Row
from algorithms.radiomics.features import FEATURES, NoFeaturesError, Processing, features_of

DESCRIBED: Final = "described"
_LESION: Final = 1
"""The first mask of the manifest."""
_DECIMALS: Final = 6


def row_of(patient: Patient) -> Row:
    """Return the features of the patient's largest lesion, and whether there is one.

    What the hospital drew is one region, in however many pieces. A scan whose lesion has no features is passed over where another
    has; a patient without a lesion is no failure, and has a row without features.

    Raises:
        NoRowError: a scan or its label map is no volume.
    """
    processing = Processing(
        spacing_mm=float(patient.config["spacing_mm"]), bin_width_hu=float(patient.config["bin_width_hu"])
    )
    rows: list[dict[str, float]] = []
    reasons: list[str] = []
    for scan in patient.scans():
        try:
            rows.append(_features(scan, processing))
        except NoFeaturesError as error:
            reasons.append(error.code)
    if not rows:
        return {"lesion": reasons[0] if reasons else "none", **dict.fromkeys(FEATURES)}
    largest = max(rows, key=lambda row: row["volume_mm3"])
    return {"lesion": DESCRIBED, **{name: round(value, _DECIMALS) for name, value in largest.items()}}


def _features(scan: Scan, processing: Processing) -> dict[str, float]:
    """Describe the lesion, with the scan's axes upright.

    Raises:
        NoFeaturesError: it has no features.
    """
    if scan.labels is None:
        raise NoFeaturesError("none")
    image = upright(scan.image)
    # By the image's affine: the two are one but for rounding, which must not turn them differently.
    lesion = upright(Volume(scan.labels.voxels, scan.image.affine)).voxels == _LESION
    x, y, z = image.spacing_mm
    return features_of(image.voxels.transpose(2, 1, 0), lesion.transpose(2, 1, 0), (z, y, x), processing)
