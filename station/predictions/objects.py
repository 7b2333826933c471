"""From a label map to a DICOM Segmentation (PS3.3 A.51), from numbers to a Measurement Report (PS3.16 TID 1500).

The objects lie on the station's own pseudonymised images: same patient, study and frame of reference, each frame on the very
instance that it was predicted on. They say of themselves, where people and programs look, that they are for research only
(Content Qualification, PS3.3 C.12.1.1, descriptions, labels), and which train made them.

Highdicom's own parts do the work. This runs in `station.predictions.maker_process` only.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Final

import highdicom as hd
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from policies.predictions import Code, Measurement
from station.cohorts.hounsfield import describe
from station.cohorts.reading import found, parse
from station.cohorts.unusable import Unusable, UnusableImage
from station.predictions.model import MANUFACTURER, MARK, ImageReference, Images, Origin, Read, Wanted

# Numbers that viewers sort by: behind the series that a scanner made.
_SERIES_NUMBER: Final = 9001
_LABEL: Final = "RESEARCH_ONLY"


@dataclass(frozen=True, slots=True)
class _Text:
    """An attribute that objects repeat of their images: its name in the model, and its form."""

    name: str
    form: str


_PLAIN: Final = r"[ -\[\]-~]{0,16}"
_TEXTS: Final = {
    "StudyDate": _Text("study_date", r"[0-9]{8}"),
    "StudyTime": _Text("study_time", r"[0-9]{6}(\.[0-9]{1,6})?"),
    "StudyID": _Text("study_id", _PLAIN),
    "AccessionNumber": _Text("accession_number", _PLAIN),
    "PatientSex": _Text("patient_sex", r"[MFO]"),
}


def read_reference(data: bytes) -> Read:
    """Read what an object needs of one pseudonymised file.

    Raises:
        UnusableImage: it is no DICOM file, or lacks the names that an object must repeat.
    """
    dataset = parse(data)
    with found(Unusable.NOT_DICOM):
        texts = {text.name: _text(dataset, keyword) for keyword, text in _TEXTS.items()}
        frame = str(dataset.get("FrameOfReferenceUID", None) or "")
        image = ImageReference.model_validate(
            {
                "sop_class_uid": str(dataset.SOPClassUID),
                "sop_instance_uid": str(dataset.SOPInstanceUID),
                "study_uid": str(dataset.StudyInstanceUID),
                "series_uid": str(dataset.SeriesInstanceUID),
                "frame_of_reference_uid": frame or None,
                "patient_orientation": tuple(
                    str(each) for each in dataset.get("PatientOrientation", None) or ()
                ),
                **texts,
            }
        )
    return Read(image=image, header=describe(dataset))


def make_segmentation(wanted: Wanted, marks: NDArray[np.uint8]) -> bytes:
    """Return a binary Segmentation, a segment for each of the prediction's.

    Args:
        wanted: what it says.
        marks: (columns, rows[, slices]): 0 is nothing, n the prediction's nth segment.

    Raises:
        UnusableImage: a number stands for no segment, or the shape is not that of the images.
    """
    images, prediction = wanted.images, wanted.prediction
    frames = np.ascontiguousarray(np.atleast_3d(marks).transpose(2, 1, 0))
    if frames.shape != (len(images.planes), images.header.rows, images.header.columns):
        raise UnusableImage(Unusable.MASK_GRID)
    if frames.max(initial=0) > len(prediction.segments):
        raise UnusableImage(Unusable.MASK_INVALID)
    algorithm = _algorithm(wanted.origin)
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name,
            segmented_property_category=_coded(segment.category),
            segmented_property_type=_coded(segment.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, segment in enumerate(prediction.segments, 1)
    ]
    for segment in segments:
        segment.SegmentDescription = MARK
    made = hd.seg.Segmentation(
        source_images=_sources(images),
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        content_label=_LABEL,
        content_description=f"{MARK}. {prediction.name}"[:64],
        **_common(wanted.origin),
    )
    if images.first.frame_of_reference_uid is None:
        # A Type 2C attribute of images without a place in the patient.
        made.PatientOrientation = list(images.first.patient_orientation) or None
    return _finished(made, wanted)


def make_report(wanted: Wanted) -> bytes:
    """Return a Comprehensive 3D SR with one group of measurements (PS3.16 TID 1500, 1501) of all images.

    Raises:
        UnusableImage: it measures nothing.
    """
    origin, images = wanted.origin, wanted.images
    algorithm = hd.sr.AlgorithmIdentification(
        name=origin.train, version=origin.version, parameters=_parameters(origin)
    )
    measured = [
        _measurement(value, wanted.measured[value.name], algorithm)
        for value in wanted.prediction.values
        if value.name in wanted.measured
    ]
    if not measured:
        raise UnusableImage(Unusable.MASK_INVALID)
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(origin.series_uid),
            name=origin.train,
            manufacturer_name=MANUFACTURER,
            model_name=origin.train,
            serial_number=origin.station,
        ),
    )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(origin.instance_uid), identifier=MARK),
        measurements=measured,
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(images.first.sop_class_uid, plane.sop_instance_uid)
            for plane in images.planes
        ],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=_procedure(images),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    common = _common(origin)
    for name in ("software_versions", "device_serial_number", "manufacturer_model_name"):
        common.pop(name)
    made = hd.sr.Comprehensive3DSR(
        evidence=_sources(images),
        content=content[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        record_evidence=True,
        **common,
    )
    return _finished(made, wanted)


def _measurement(
    value: Measurement, number: float, algorithm: hd.sr.AlgorithmIdentification
) -> hd.sr.Measurement:
    unit = CodedConcept(
        value=value.unit, scheme_designator="UCUM", meaning="no units" if value.unit == "1" else value.unit
    )
    return hd.sr.Measurement(name=_coded(value.title), value=number, unit=unit, algorithm_id=algorithm)


def _procedure(images: Images) -> Any:  # noqa: ANN401 - pydicom is not typed here
    unspecified = (
        codes.LN.CTUnspecifiedBodyRegion
        if images.header.modality == "CT"
        else codes.LN.XRUnspecifiedBodyRegion
    )
    return CodedConcept(unspecified.value, unspecified.scheme_designator, unspecified.meaning)


def _sources(images: Images) -> list[Dataset]:
    """Return the images as data sets of exactly what an object repeats of them."""
    sources: list[Dataset] = []
    step_mm = _step_mm(images)
    for plane in images.planes:
        source = Dataset()
        source.SOPClassUID, source.SOPInstanceUID = images.first.sop_class_uid, plane.sop_instance_uid
        source.StudyInstanceUID, source.SeriesInstanceUID = images.first.study_uid, images.first.series_uid
        source.PatientID = images.patient
        # A name of one part, as a person's name is written.
        source.PatientName = f"{images.patient}^"
        source.PatientBirthDate = source.ReferringPhysicianName = ""
        for keyword, text in _TEXTS.items():
            setattr(source, keyword, getattr(images.first, text.name))
        source.Modality = images.header.modality
        source.Rows, source.Columns = images.header.rows, images.header.columns
        if images.first.frame_of_reference_uid is not None and plane.position is not None:
            source.FrameOfReferenceUID = images.first.frame_of_reference_uid
            source.PositionReferenceIndicator = ""
            source.ImagePositionPatient = [DSfloat(value, auto_format=True) for value in plane.position]
            source.ImageOrientationPatient = [
                DSfloat(value, auto_format=True) for value in images.header.orientation or ()
            ]
            source.PixelSpacing = [
                DSfloat(value, auto_format=True) for value in images.header.pixel_spacing_mm or ()
            ]
            source.SliceThickness = None if step_mm is None else DSfloat(step_mm, auto_format=True)
        sources.append(source)
    return sources


def _common(origin: Origin) -> dict[str, Any]:
    return {
        "series_instance_uid": origin.series_uid,
        "series_number": _SERIES_NUMBER,
        "sop_instance_uid": origin.instance_uid,
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": origin.train,
        "software_versions": origin.version,
        "device_serial_number": origin.station,
        "series_description": MARK,
    }


def _algorithm(origin: Origin) -> hd.AlgorithmIdentificationSequence:
    return hd.AlgorithmIdentificationSequence(
        name=origin.train,
        family=codes.DCM.ArtificialIntelligence,
        version=origin.version,
        source=origin.organisation or None,
        parameters=dict(line.split("=", 1) for line in _parameters(origin)),
    )


def _parameters(origin: Origin) -> list[str]:
    """Return by what exactly the train that ran is known, and in which run."""
    return [
        f"image={origin.image_config_digest}",
        f"order={origin.order_digest}",
        f"round={origin.round}",
    ]


def _coded(code: Code) -> CodedConcept:
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _finished(made: Any, wanted: Wanted) -> bytes:  # noqa: ANN401
    """Mark it, date it by the run and not by this process's clock, and encode it."""
    moment = datetime.strptime(wanted.origin.moment, "%Y%m%d%H%M%S")  # noqa: DTZ007 - UTC, as the model says
    date, time = f"{moment:%Y%m%d}", f"{moment:%H%M%S}"
    for event in ("Content", "Series", "InstanceCreation"):
        if f"{event}Date" in made or event == "Content":
            setattr(made, f"{event}Date", date)
            setattr(made, f"{event}Time", time)
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = wanted.origin.moment
    _name_dimensions(made, wanted.origin)
    made.ContentQualification = "RESEARCH"
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = "Made of pseudonymised images; see those."
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def _name_dimensions(made: Any, origin: Origin) -> None:  # noqa: ANN401
    """Give a segmentation's dimensions a UID that follows from its own, so that equal predictions are equal bytes."""
    derived = hashlib.sha256(f"dimensions {origin.instance_uid}".encode()).digest()[:16]
    uid = f"2.25.{int.from_bytes(derived, 'big')}"
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(keyword, ()):
            item.DimensionOrganizationUID = uid


def _text(dataset: Any, keyword: str) -> str:  # noqa: ANN401
    """Return a value to be repeated; one that has not its attribute's form is left out."""
    value = str(dataset.get(keyword, None) or "").strip()
    return value if re.fullmatch(_TEXTS[keyword].form, value) else ""


def _step_mm(images: Images) -> float | None:
    """Return how far two neighbouring images lie apart; None where there is one, or none has a place."""
    places = [plane.position for plane in images.planes[:2]]
    if len(places) < 2 or places[0] is None or places[1] is None:
        return None
    return float(np.linalg.norm(np.subtract(places[1], places[0])))
