"""One file: read, judged, its pixels inspected, pseudonymised, durable in the handover folder, and read again.

Runs in a worker. Nothing of a file's content leaves it but through `Taken`, which is identified and stays in intake.
"""

import os
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from policies.documents import digest_of, digest_of_file
from policies.errors import StorageError
from station.handover import Acquisition, InstanceRecord, instance_path, make_folder
from station.intake.clinical.labels.segmentations import SEGMENTATION_CLASSES
from station.intake.outcomes import IntakeReason
from station.intake.workers.messages import Refused, Setup, Taken, TakeTask
from station.intake.workers.pixels import Inspection, not_inspected
from station.intake.workers.terms import codes, number, size, term
from station.predictions.model import MANUFACTURER
from station.pseudonymisation.engine import PseudonymisedInstance, Pseudonymiser
from station.pseudonymisation.faults import PseudonymisationError
from station.pseudonymisation.pixels import PixelFinding
from station.pseudonymisation.reading import contain, read_dicom
from station.storage.files import write_atomically

_MAX_IDENTITY = 64


class Taker:
    """Takes files up for the collections of a setup."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._inspection = Inspection(setup.pixels)
        self._pseudonymisers: dict[str, Pseudonymiser] = {}

    def take(self, task: TakeTask) -> Taken | Refused:
        """Take one file up, or say why not."""
        try:
            data = self._read(Path(task.path))
            if data is None:
                return Refused(reason=IntakeReason.TOO_LARGE)
            dataset = read_dicom(data)
            sop_class, accession, study_date = contain(partial(_linking_values, dataset))
            if sop_class and sop_class not in self._setup.sop_classes:
                return Refused(reason=IntakeReason.SOP_CLASS_NOT_ACCEPTED)
            if contain(partial(_is_own_prediction, dataset)):
                # What a train marked is no label to train the next one on.
                return Refused(reason=IntakeReason.OWN_PREDICTION)
            if "PixelData" not in dataset:
                # An image that was cut off before its pixels, or that never had any.
                return Refused(reason=IntakeReason.PIXELS_MISSING)
            pseudonymiser = self._pseudonymiser(task.collection)
            # The pixels of a segmentation are a drawing: there is no text and no face in them to look for.
            drawn = sop_class in SEGMENTATION_CLASSES
            finding = not_inspected(dataset) if drawn else self._inspection.look(dataset, task)
            instance = pseudonymiser.pseudonymise(dataset, finding)
            identity = contain(partial(pseudonymiser.patient_identity, dataset))
            issuer, patient_id = self._setup.known_by(*identity)
            record = self._record(task.collection, instance, instance.encode(), finding)
        except PseudonymisationError as error:
            return Refused(reason=error.fault)
        return Taken(
            record=record,
            source=digest_of(data),
            issuer=issuer[:_MAX_IDENTITY],
            patient_id=patient_id[:_MAX_IDENTITY],
            accession=accession,
            study_date=study_date,
        )

    def _pseudonymiser(self, collection: str) -> Pseudonymiser:
        found = self._pseudonymisers.get(collection)
        if found is None:
            setup = self._setup
            found = Pseudonymiser(
                setup.key,
                setup.project,
                setup.default_issuer,
                setup.options_for(collection),
                aliases=setup.known_by,
            )
            self._pseudonymisers[collection] = found
        return found

    def _read(self, path: Path) -> bytes | None:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size > self._setup.max_file_bytes:
                return None
            return file.read()

    def _record(
        self, collection: str, instance: PseudonymisedInstance, data: bytes, finding: PixelFinding
    ) -> InstanceRecord:
        digest = digest_of(data)
        self._store(digest, data)
        dataset = instance.dataset
        return InstanceRecord.model_validate(
            {
                "file": digest,
                "size_bytes": len(data),
                "collection": collection,
                "patient": instance.patient,
                "study_uid": instance.study_uid,
                "series_uid": instance.series_uid,
                "sop_instance_uid": instance.sop_instance_uid,
                "sop_class_uid": str(dataset.SOPClassUID),
                "transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID),
                "modality": _code(dataset, "Modality"),
                "body_part": _code(dataset, "BodyPartExamined") or self._setup.body_parts.get(collection, ""),
                "view_position": _code(dataset, "ViewPosition"),
                "acquisition": contain(partial(_acquisition, dataset, finding)),
            }
        )

    def _store(self, digest: str, data: bytes) -> None:
        """Make the file durable, and read it again from the disk: its original goes once this has returned."""
        target = instance_path(self._setup.handover, digest)
        if target.exists() and _stands(target, digest):
            return
        make_folder(target.parent)
        write_atomically(target, data, 0o640)
        if not _stands(target, digest):
            raise StorageError("handover: a file that was written is not the one that is read")


def open_plain(path: Path) -> BinaryIO:
    """Open a file of the spool or of quarantine; a link is never followed."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _stands(path: Path, digest: str) -> bool:
    with open_plain(path) as file:
        # What was synced need not stay in memory: let the disk itself answer.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest_of_file(path) == digest


def _linking_values(dataset: Dataset) -> tuple[str, str, str]:
    """Return SOP Class UID, accession and Study Date as they stand."""
    sop_class, accession, study_date = (
        str(dataset.get(keyword) or "").strip() for keyword in ("SOPClassUID", "AccessionNumber", "StudyDate")
    )
    return sop_class, accession[:_MAX_IDENTITY], study_date[:10]


def _is_own_prediction(dataset: Dataset) -> bool:
    """Tell whether a file is what a station made of a train's answer, by what each says of itself."""
    maker, use = (
        str(dataset.get(keyword) or "").strip() for keyword in ("Manufacturer", "ContentQualification")
    )
    return maker == MANUFACTURER and use == "RESEARCH"


def _acquisition(dataset: Dataset, finding: PixelFinding) -> Acquisition:
    """Say how a pseudonymised instance was acquired; what the options did not keep is not there."""
    kernel = dataset.get("ConvolutionKernel")
    kernels = [str(part) for part in kernel] if isinstance(kernel, MultiValue) else [str(kernel or "")]
    year = str(dataset.get("StudyDate") or "")[:4]
    return Acquisition.model_validate(
        {
            "manufacturer": term(dataset.get("Manufacturer")),
            "model": term(dataset.get("ManufacturerModelName")),
            "kernel": term(" ".join(kernels)),
            "slice_thickness_mm": number(dataset.get("SliceThickness"), 1000.0),
            "study_year": int(year) if year.isdecimal() and year.isascii() and year >= "1000" else None,
            "rows": size(dataset.get("Rows")),
            "columns": size(dataset.get("Columns")),
            "image_type": codes(dataset.get("ImageType"), 4),
            "recognizable_face": finding.recognizable_face,
            "pixels": finding.status,
        }
    )


def _code(dataset: Dataset, keyword: str) -> str:
    # The engine lets a CS pass only in its own form, so what is left here is a code or several.
    value = dataset.get(keyword)
    return value.strip() if isinstance(value, str) else ""
