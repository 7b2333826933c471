"""Makes DICOM objects of what a train answered, in a process that may die: the starter's side of `maker_process`."""

import math
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import Field

from policies.documents import StrictModel
from station.cohorts.decoder import ConfinedProcess
from station.cohorts.decoding import read_file
from station.cohorts.series import arrange, examine_series
from station.cohorts.source import CaseSource
from station.cohorts.unusable import Unusable, UnusableImage
from station.predictions.model import Images, Plane, Read, Verb, Wanted

_GROWTH_BYTES: Final = 4 << 20
"""Of an object: its head."""
_PER_FRAME_BYTES: Final = 4096
"""Of an object: what it says of each frame, or of each image that it measured."""


class _Object(StrictModel):
    size: Annotated[int, Field(ge=1)]


class ObjectMaker(ConfinedProcess):
    """One process that reads references and makes objects."""

    MODULE = "station.predictions.maker_process"

    def __init__(self, left_s: Callable[[], float] = lambda: math.inf) -> None:
        """Start nothing yet; when `left_s` says that no time is left, what is under way ends and nothing more is made."""
        super().__init__()
        self._left_s = left_s

    def _allowed_s(self) -> float:
        return min(super()._allowed_s(), max(0.0, self._left_s()))

    def read(self, data: bytes) -> Read:
        """Read what an object needs of one pseudonymised file.

        Raises:
            UnusableImage: it lacks that, or the process died or ran too long.
            UnavailableError: no process can be started.
        """
        return self._ask(Verb.READ, {}, data, Read, lambda _: 0)[0]

    def segment(self, wanted: Wanted, marks: bytes) -> bytes:
        """Return a DICOM Segmentation of a label map. Raises as `read` does."""
        frames = len(wanted.images.planes) * len(wanted.prediction.segments)
        # A bit for a byte, for each segment; and each frame's own part.
        most = len(marks) * len(wanted.prediction.segments) // 8 + frames * _PER_FRAME_BYTES
        return self._made(Verb.SEGMENT, wanted, marks, most)

    def measure(self, wanted: Wanted) -> bytes:
        """Return a DICOM Structured Report of numbers. Raises as `read` does."""
        return self._made(Verb.MEASURE, wanted, b"", len(wanted.images.planes) * _PER_FRAME_BYTES)

    def _made(self, verb: Verb, wanted: Wanted, data: bytes, most: int) -> bytes:
        def size(head: _Object) -> int:
            return head.size if head.size <= most + _GROWTH_BYTES else -1

        _, made = self._ask(verb, wanted.model_dump(mode="json"), data, _Object, size)
        return made


def images_of(maker: ObjectMaker, case: CaseSource) -> Images:
    """Return the images of a case in the order of its volume's slices, each file verified by its digest.

    The very order, by the very code, in which the volume was made (`station.cohorts.series.arrange`).

    Raises:
        UnusableImage: the files are not those of one image or volume any more.
        UnavailableError: no process can be started.
    """
    read = [maker.read(read_file(file)) for file in case.files]
    first = read[0].image
    if any(
        (
            each.image.study_uid,
            each.image.series_uid,
            each.image.sop_class_uid,
            each.image.frame_of_reference_uid,
        )
        != (first.study_uid, first.series_uid, first.sop_class_uid, first.frame_of_reference_uid)
        for each in read
    ):
        raise UnusableImage(Unusable.MIXED_FRAME)
    if case.modality != "CT":
        if len(read) != 1:
            raise UnusableImage(Unusable.UNREADABLE)
        return Images(
            patient=case.patient,
            first=first,
            header=read[0].header,
            planes=(Plane(sop_instance_uid=first.sop_instance_uid),),
        )
    if first.frame_of_reference_uid is None:
        # Nothing can be laid over images that name no place.
        raise UnusableImage(Unusable.GEOMETRY)
    headers = [each.header for each in read]
    if findings := examine_series(headers):
        raise UnusableImage(findings[0].reason)
    _, order = arrange(headers)
    return Images(
        patient=case.patient,
        first=read[order[0]].image,
        header=headers[order[0]],
        planes=tuple(
            Plane(sop_instance_uid=read[index].image.sop_instance_uid, position=headers[index].position)
            for index in order
        ),
    )
