"""The process that makes objects: reads requests on stdin, writes DICOM on stdout, and can do no more.

It meets two strangers: files of the store, whose headers it reads, and what a train answered. As in
`station.cohorts.decoder_process`, whose words it speaks and whose confinement it takes on: bounded memory, no file, no socket, no child.

    verb       parameters       bytes            answer     bytes
    READ       {}               a DICOM file     `Read`     none
    SEGMENT    `Wanted`         a label map      {"size"}   a DICOM Segmentation
    MEASURE    `Wanted`         none             {"size"}   a DICOM Structured Report
"""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from policies.predictions import Code, Measurement, Prediction, Segment
from station.cohorts.decoder_process import Answer, Doing, confine, serve
from station.cohorts.series import SliceHeader
from station.cohorts.unusable import Unusable, UnusableImage
from station.predictions.model import ImageReference, Images, Origin, Plane, Verb, Wanted
from station.predictions.objects import make_report, make_segmentation, read_reference


def _read(data: bytes, _: dict[str, Any]) -> Answer:
    return read_reference(data).model_dump(mode="json"), b""


def _segment(data: bytes, parameters: dict[str, Any]) -> Answer:
    wanted = Wanted.model_validate_json(json.dumps(parameters))
    if len(data) != int(np.prod(wanted.shape, dtype=np.int64)):
        raise UnusableImage(Unusable.MASK_GRID)
    made = make_segmentation(wanted, np.frombuffer(data, np.uint8).reshape(wanted.shape))
    return {"size": len(made)}, made


def _measure(_: bytes, parameters: dict[str, Any]) -> Answer:
    made = make_report(Wanted.model_validate_json(json.dumps(parameters)))
    return {"size": len(made)}, made


_VERBS: Final[Mapping[int, Doing]] = {Verb.READ: _read, Verb.SEGMENT: _segment, Verb.MEASURE: _measure}


def _warm_up() -> None:
    """Make one of each of nothing: afterwards nothing more can be loaded."""
    code = Code(value="39607008", scheme="SCT", meaning="Lung")
    header = SliceHeader(
        modality="CT", rows=2, columns=2, orientation=(1, 0, 0, 0, 1, 0), pixel_spacing_mm=(1.0, 1.0)
    )
    image = ImageReference(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="2.25.1",
        study_uid="2.25.2",
        series_uid="2.25.3",
        frame_of_reference_uid="2.25.4",
    )
    planes = tuple(
        Plane(sop_instance_uid=f"2.25.{number}", position=(0.0, 0.0, float(number))) for number in (1, 5)
    )
    origin = Origin(
        series_uid="2.25.6", instance_uid="2.25.7", moment="20000101000000", station="nobody", train="none",
        version="0.0.0", organisation="", image_config_digest=f"sha256:{'0' * 64}", order_digest=f"sha256:{'0' * 64}",
        round=0,
    )  # fmt: skip
    marks = Prediction(
        name="marks", kind="segmentation", segments=(Segment(name="s", category=code, type=code),)
    )
    value = Measurement(name="value", title=code, minimum=0, maximum=1)
    report = Prediction(name="report", kind="measurements", values=(value,))
    images = Images(patient="NOBODY", first=image, header=header, planes=planes)
    wanted = Wanted(prediction=marks, images=images, origin=origin, shape=(2, 2, 2))
    make_segmentation(wanted, np.ones((2, 2, 2), np.uint8))
    make_report(wanted.model_copy(update={"prediction": report, "measured": {"value": 0.5}}))


def main() -> None:
    """Load what makes objects, confine, serve."""
    warnings.simplefilter("ignore")  # pydicom's and highdicom's quote values
    _warm_up()
    confine()
    serve(sys.stdin.buffer, sys.stdout.buffer, int(os.environ["PHT_DECODER_ALARM_S"]), _VERBS)


if __name__ == "__main__":
    main()
