"""What would stop a train: per series and per collection, by reason, with what to do about it. Pure: facts in, report out.

A report holds pseudonymous UIDs and counts; it is the operator's, and nothing of it leaves. Which fault a CT series has is
judged by `station.cohorts.series`, from headers that a confined process read (`station.catalogue.readiness_job`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policies.manifest import DataNeeds, Modality
from station.cohorts import Unusable

LISTED = 10_000
"""Series that a report names at most; all are counted."""

NO_CONSENT = "no-consent"
CONSENT_STALE = "consent-stale"
CONSENT_UNKNOWN = "consent-unknown"
BODY_PART = "body-part"
NO_CLINICAL_ROW = "no-clinical-row"
TOO_FEW_PATIENTS = "too-few-patients"

ADVICE: Mapping[str, str] = {
    NO_CONSENT: "Import the consent register again, or ask these patients; without it they stay out.",
    CONSENT_STALE: "Import the consent register again: it is older than the hospital accepts.",
    CONSENT_UNKNOWN: "Import the consent register: there is none, or it is dated in the future.",
    BODY_PART: "Trains ask for another body part; correct it at the source where the file is wrong.",
    NO_CLINICAL_ROW: "Import the eCRF export of these studies; trains that ask for clinical fields need it.",
    TOO_FEW_PATIENTS: "Take in more patients, or resolve what stops the others.",
    Unusable.UNREADABLE: "The file cannot be read: check the disk, then take the series in again.",
    Unusable.DIGEST: "The file is not the one that was handed over: call the security officer.",
    Unusable.NOT_DICOM: "Not readable as DICOM: retrieve the series again from the PACS.",
    Unusable.MODALITY: "This version lays out CT, DX and CR.",
    Unusable.TRANSFER_SYNTAX: "Retrieve the series again in an uncompressed or a usual compressed transfer syntax.",
    Unusable.NOT_A_RADIOGRAPH: "Not a single-frame grey image: leave it out of the collection.",
    Unusable.TOO_LARGE: "Larger than is laid out; ask for a reconstruction with fewer or smaller slices.",
    Unusable.PIXEL_ATTRIBUTES: "Pixel attributes contradict each other: retrieve it again, or leave it out.",
    Unusable.PIXEL_DATA: "The pixel data are cut off or damaged: retrieve it again.",
    Unusable.LOOKUP_TABLE: "Its lookup table is damaged: retrieve it again, or leave it out.",
    Unusable.DECODER_CRASHED: "Decoding it crashes: retrieve it in another transfer syntax.",
    Unusable.DECODER_TIMEOUT: "Decoding it takes too long: retrieve it in another transfer syntax.",
    Unusable.LABEL_MISSING: "Fill in the label's field in the eCRF, and import it again.",
    Unusable.LABEL_INVALID: "The label's field is not a number: correct it in the eCRF.",
    Unusable.CLINICAL_INVALID: "A clinical field is not what its profile says: correct it in the eCRF.",
    Unusable.DUPLICATE: "The same image stands twice: remove one.",
    Unusable.VIEW_POSITION: "Another view than the train asks for.",
    Unusable.RECOGNIZABLE_FACE: "A face could be rebuilt: withheld. Ask for thicker slices, or deface it.",
    Unusable.NOT_CT: "Other objects stand in the series: retrieve its CT images only.",
    Unusable.MULTIFRAME: "Multi-frame CT has no layout yet: ask for single-frame images.",
    Unusable.LOCALIZER: "Scout images stand in the series: retrieve it without them.",
    Unusable.TOO_FEW_SLICES: "Too few slices for a volume: retrieve the whole series.",
    Unusable.GEOMETRY: "Position, orientation or spacing is missing: ask for another reconstruction.",
    Unusable.MIXED_SIZES: "Slices differ in size or spacing: two reconstructions in one series; split it.",
    Unusable.MIXED_ORIENTATION: "Slices differ in orientation: split the series at the source.",
    Unusable.MIXED_FRAME: "Slices of two frames of reference: split the series at the source.",
    Unusable.MISSING_RESCALE: "Rescale slope or intercept is missing: retrieve the original images.",
    Unusable.NOT_HOUNSFIELD: "Values are not Hounsfield units: leave derived series out.",
    Unusable.DUPLICATE_POSITION: "Two slices in one place: phases or duplicates in one series; split it.",
    Unusable.GAP: "Slices are missing: retrieve the series again and compare the number with the PACS.",
    Unusable.UNEVEN_SPACING: "Slices are unevenly spaced: ask for another reconstruction.",
    Unusable.GANTRY_TILT: "Tilted gantry: such series are not resampled here; leave them out.",
    Unusable.MASK_MISSING: "Import the mask (DICOM SEG or NIfTI) of this series.",
    Unusable.MASK_INVALID: "The mask cannot be read: import it again.",
    Unusable.MASK_GRID: "The mask lies on another grid than its series: draw it on these images.",
    Unusable.MASK_OVERLAP: "Two parts of the mask overlap: a label map has one value per voxel.",
}
"""What to do about each reason; a test holds it complete."""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What is known of one series in one collection.

    Attributes:
        decodable: whether every file's transfer syntax is one that is decoded here.
        consenting: whether its patient consents to at least one purpose, asked as the collection's were.
        clinical: of its study under the profile asked for; None where there is no row.
        masks: what the masks on it are named.
        found: what its files were found to be: reason and number of files.
    """

    collection: str
    series_uid: str
    patient: str
    modality: str
    body_part: str
    views: frozenset[str]
    files: int
    decodable: bool
    recognizable_face: bool
    consenting: bool
    clinical: Mapping[str, object] | None
    masks: frozenset[str]
    found: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason, over a collection: how many series, files and patients it stops."""

    reason: str
    series: int
    files: int
    patients: int
    advice: str


@dataclass(frozen=True, slots=True)
class CollectionReadiness:
    """One collection: how much of it a train would get, and what stops the rest."""

    collection: str
    series: int
    ready_series: int
    patients: int
    ready_patients: int
    obstacles: tuple[Obstacle, ...]


@dataclass(frozen=True, slots=True)
class SeriesReadiness:
    """One series that something stops: reasons, and how many of its files each concerns."""

    collection: str
    series_uid: str
    reasons: Mapping[str, int]


def obstacles(series: SeriesFacts, needs: DataNeeds | None, consent: str | None) -> dict[str, int]:
    """Return everything that would stop a train from getting a series, and how many files each reason concerns.

    Args:
        series: what is known.
        needs: of a train; without one, what would stop any.
        consent: why the whole register cannot be relied on; None where it can.
    """
    found: dict[str, int] = {}

    def add(reason: str, *, when: bool) -> None:
        if when:
            found[str(reason)] = series.files

    add(consent or "", when=consent is not None)
    add(NO_CONSENT, when=consent is None and not series.consenting)
    add(Unusable.MODALITY, when=series.modality not in (needs.modalities if needs else tuple(Modality)))
    add(Unusable.TRANSFER_SYNTAX, when=not series.decodable)
    add(Unusable.RECOGNIZABLE_FACE, when=series.recognizable_face)
    found |= {str(reason): count for reason, count in series.found.items()}
    if needs is None:
        add(NO_CLINICAL_ROW, when=series.clinical is None)
        add(Unusable.MASK_MISSING, when=series.modality == Modality.CT and not series.masks)
        return found
    add(BODY_PART, when=series.body_part != needs.body_part)
    add(
        Unusable.VIEW_POSITION,
        when=bool(needs.view_positions) and series.views.isdisjoint(needs.view_positions),
    )
    add(Unusable.MASK_MISSING, when=not set(needs.masks) <= series.masks)
    clinical = series.clinical or {}
    add(NO_CLINICAL_ROW, when=series.clinical is None and bool(needs.clinical_fields))
    if needs.label is not None:
        label = clinical.get(needs.label)
        add(Unusable.LABEL_MISSING, when=label is None)
        add(Unusable.LABEL_INVALID, when=isinstance(label, str))
    return found


class Tally:
    """Counts series after series, so that a collection of any size is reported in little memory."""

    def __init__(self, needs: DataNeeds | None, consent: str | None, minimum_patients: int) -> None:
        self._needs, self._consent, self._minimum = needs, consent, minimum_patients
        self._collections: dict[str, _Collection] = {}
        self.listed: list[SeriesReadiness] = []
        self.unlisted = 0

    def add(self, series: SeriesFacts) -> None:
        """Count one series."""
        found = obstacles(series, self._needs, self._consent)
        self._collections.setdefault(series.collection, _Collection()).add(series, found)
        if not found:
            return
        if len(self.listed) < LISTED:
            self.listed.append(SeriesReadiness(series.collection, series.series_uid, found))
        else:
            self.unlisted += 1

    def collections(self, names: Iterable[str] = ()) -> tuple[CollectionReadiness, ...]:
        """Return what was counted per collection, sorted by name; those named are there, also when empty."""
        for name in names:
            self._collections.setdefault(name, _Collection())
        return tuple(
            self._collections[name].readiness(name, self._minimum) for name in sorted(self._collections)
        )


@dataclass(slots=True)
class _Collection:
    series: int = 0
    ready_series: int = 0
    patients: set[str] = field(default_factory=set)
    ready_patients: set[str] = field(default_factory=set)
    series_of: Counter[str] = field(default_factory=Counter)
    files_of: Counter[str] = field(default_factory=Counter)
    patients_of: dict[str, set[str]] = field(default_factory=dict)

    def add(self, series: SeriesFacts, found: Mapping[str, int]) -> None:
        self.series += 1
        self.patients.add(series.patient)
        if not found:
            self.ready_series += 1
            self.ready_patients.add(series.patient)
        for reason, files in found.items():
            self.series_of[reason] += 1
            self.files_of[reason] += files
            self.patients_of.setdefault(reason, set()).add(series.patient)

    def readiness(self, name: str, minimum: int) -> CollectionReadiness:
        found = [
            Obstacle(reason, count, self.files_of[reason], len(self.patients_of[reason]), ADVICE[reason])
            for reason, count in sorted(self.series_of.items(), key=lambda item: (-item[1], item[0]))
        ]
        if len(self.ready_patients) < minimum:
            found.append(Obstacle(TOO_FEW_PATIENTS, 0, 0, len(self.ready_patients), ADVICE[TOO_FEW_PATIENTS]))
        return CollectionReadiness(
            name, self.series, self.ready_series, len(self.patients), len(self.ready_patients), tuple(found)
        )
