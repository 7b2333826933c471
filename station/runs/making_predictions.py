"""From what a train answered about one case to DICOM objects that nobody sees yet: all of an answer, or nothing of it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from policies.documents import digest_of
from policies.errors import PhtError
from policies.predictions import Prediction
from policies.wire.arrays import open_tensor
from station.catalogue import Standing
from station.cohorts import CaseSource, CohortKey
from station.predictions.book import NewPrediction
from station.predictions.folder import PredictionFolder, file_name
from station.predictions.judging import Judged
from station.predictions.maker import ObjectMaker, images_of
from station.predictions.model import Images, Origin, Wanted
from station.runs.prediction_job import PredictionJob
from station.sandbox.spec import MIB
from station.settings import StationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """An answer that is what the manifest declares.

    Attributes:
        source: the case it is about.
        shape: of its image, as the train stated it.
    """

    source: CaseSource
    judged: Judged
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PredictionMaking:
    """Makes the objects of one job."""

    settings: StationSettings
    cohort_key: CohortKey
    now: Callable[[], datetime]
    job: PredictionJob
    maker: ObjectMaker

    def stage(self, case: JudgedCase) -> list[NewPrediction] | None:
        """Make the objects of one case, synced where nobody looks yet; None where there is no room for all of them.

        Raises:
            UnusableImage: its images cannot be referred to, or an object cannot be made.
            StorageError: the folder, or the disk.
        """
        made: list[NewPrediction] = []
        whole = False
        try:
            whole = self._stage_all(case, made)
        finally:
            if not whole:
                drop(self.job.folder, made)
        return made if whole else None

    def _stage_all(self, case: JudgedCase, made: list[NewPrediction]) -> bool:
        """Stage object after object; returns whether there was room for each."""
        images = images_of(self.maker, case.source)
        for prediction in self.job.prepared.admitted.manifest.outputs.predictions:
            measured = {
                value.name: case.judged.measured[value.name]
                for value in prediction.values
                if value.name in case.judged.measured
            }
            if prediction.kind == "measurements" and not measured:
                continue
            wanted = self._wanted(case, images, prediction, measured)
            data = self._object(case.judged, wanted)
            if not self._has_room(len(data), made):
                return False
            made.append(self._put(case.source, wanted, data))
        return True

    def _wanted(
        self, case: JudgedCase, images: Images, prediction: Prediction, measured: dict[str, float]
    ) -> Wanted:
        return Wanted(
            prediction=prediction,
            images=images,
            origin=self._origin(case.source, prediction),
            shape=case.shape,
            measured=measured,
        )

    def _object(self, judged: Judged, wanted: Wanted) -> bytes:
        if wanted.prediction.kind == "segmentation" and judged.arrays is not None:
            marks = open_tensor(judged.arrays, judged.marks[wanted.prediction.name]).tobytes()
            return self.maker.segment(wanted, marks)
        return self.maker.measure(wanted)

    def _has_room(self, size_bytes: int, made: list[NewPrediction]) -> bool:
        """Whether the disk and the hospital's limit leave room for one more, beside the case's own so far."""
        keep_free = self.settings.ceilings.keep_free_mib * MIB
        if self.job.folder.free_bytes() < size_bytes + keep_free:
            return False
        there = self.job.made.size_bytes + sum(each.size_bytes for each in made)
        return there + size_bytes <= self.job.most_bytes

    def _put(self, source: CaseSource, wanted: Wanted, data: bytes) -> NewPrediction:
        job, policy = self.job, self.job.prepared.admitted.verified.in_force.policy
        name = file_name(job.run.order_digest, job.evaluated.round, wanted.origin.instance_uid)
        job.folder.stage(name, data)
        return NewPrediction(
            order_digest=job.run.order_digest,
            round=job.evaluated.round,
            case=source.case,
            patient=source.patient,
            name=wanted.prediction.name,
            kind=wanted.prediction.kind,
            policy_id=policy.id,
            purposes=policy.data.consent_purposes,
            sources=Standing.of((source,)).files,
            file=name,
            digest=digest_of(data),
            size_bytes=len(data),
        )

    def _origin(self, source: CaseSource, prediction: Prediction) -> Origin:
        order_digest, round_ = self.job.run.order_digest, self.job.evaluated.round
        admitted = self.job.prepared.admitted
        of = (str(round_), source.case, prediction.name)
        key = self.cohort_key
        organisation = "".join(
            character
            for character in admitted.manifest.contact.organisation
            if character.isascii() and character.isprintable() and character != "\\"
        )
        return Origin(
            series_uid=key.prediction_uid(order_digest, "series", *of),
            instance_uid=key.prediction_uid(order_digest, "instance", *of),
            moment=f"{self.now():%Y%m%d%H%M%S}",
            station=self.settings.name,
            train=admitted.manifest.name,
            version=admitted.manifest.version,
            organisation=organisation[:64].strip(),
            image_config_digest=admitted.order.image_config_digest,
            order_digest=order_digest,
            round=round_,
        )


def drop(folder: PredictionFolder, made: Iterable[NewPrediction]) -> None:
    """Remove what was made and is kept by nobody; what cannot be removed now, the next start removes."""
    try:
        folder.drop(each.file for each in made)
    except PhtError as error:
        log.error("predictions.not_dropped", extra={"reason": type(error).__name__})  # noqa: TRY400
