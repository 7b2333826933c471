"""Asks a warm train about its cohort's cases, one by one, and has objects made of what it answers; keeps nothing.

Asked are those of whom every image may be used now, as the cohort was frozen from them. A case that is not answered, or not as declared,
costs no other; a container that ended, a window that is over, and a folder that is full end the asking.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import StateError
from policies.refusals import Refused
from policies.splits import Split
from station.admission.gatekeeper import Gatekeeper
from station.catalogue import Catalogue, Standing
from station.cohorts import CaseSource, CohortKey
from station.cohorts.unusable import UnusableImage
from station.predictions.judging import arrays_limit, judge, shape_of
from station.predictions.maker import ObjectMaker
from station.runs.making_predictions import JudgedCase, PredictionMaking
from station.runs.moments import Moments
from station.runs.prediction_job import PredictionJob
from station.runs.prepared import RunSession
from station.sandbox.mapping import MapReply
from station.sandbox.spec import MIB, ReplyLimits, TrainFailure, TrainRequest
from station.settings import StationSettings

_HEAD_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Window:
    """Until when; both in the seconds of the station's `Moments`.

    Attributes:
        asked_until: nothing is asked from then on.
        made_by: making an object ends then, done or not.
    """

    asked_until: float
    made_by: float


@dataclass(frozen=True, slots=True)
class PredictionAsking:
    """Asks the train of one job after another."""

    settings: StationSettings
    gatekeeper: Gatekeeper
    catalogue: Catalogue
    cohort_key: CohortKey
    moments: Moments

    def ask(self, job: PredictionJob, window: Window) -> None:
        """Ask about every case that there is time and room for; `job.made` says what came of it.

        Raises:
            StateError: the cohort cannot be read.
            StorageError: the folder, or the disk.
            UnavailableError: no process that makes objects can be started.
        """
        weights = job.evaluated.weights
        if weights is not None and not weights.is_file():
            # Weights of a later message have taken their place: nobody was told of an evaluation of those.
            return
        sources = self._sources(job)
        with closing(ObjectMaker(lambda: window.made_by - self.moments.now())) as maker:
            making = PredictionMaking(self.settings, self.cohort_key, self.gatekeeper.now, job, maker)
            for case, image in _listed(job.prepared.cohort.path):
                source = sources.get(case)
                if source is None:
                    continue
                session = self._listening(job, window)
                if session is None or job.made.size_bytes >= job.most_bytes:
                    return
                try:
                    self._one(making, session, (case, image, source), window)
                except UnusableImage:
                    job.made.left_out += 1

    def _listening(self, job: PredictionJob, window: Window) -> RunSession | None:
        """Return the session with the train while it takes another question, in time."""
        session = job.prepared.session
        if job.prepared.ended_by is not None or session is None or not session.alive:
            return None
        return None if self.moments.now() >= window.asked_until else session

    def _one(
        self,
        making: PredictionMaking,
        session: RunSession,
        asked: tuple[str, Path, CaseSource],
        window: Window,
    ) -> None:
        case, image, source = asked
        job, made = making.job, making.job.made
        manifest, order = job.prepared.admitted.manifest, job.prepared.admitted.order
        predictions, shape = manifest.outputs.predictions, shape_of(image)
        ceilings = self.settings.ceilings
        limits = ReplyLimits(
            job.prepared.work / "predicted.safetensors",
            arrays_limit(predictions, shape),
            _HEAD_BYTES,
            keep_free_bytes=ceilings.keep_free_mib * MIB,
        )
        timeout_s = min(
            float(min(manifest.resources.message_timeout_s, ceilings.message_timeout_s)),
            window.asked_until - self.moments.now(),
        )
        made.cases += 1
        reply = session.exchange(
            TrainRequest(
                "predict", job.evaluated.round, dict(order.hyperparameters), job.evaluated.weights, case
            ),
            limits,
            timeout_s=max(timeout_s, 0.1),
        )
        if isinstance(reply, TrainFailure | MapReply):
            made.failed += 1
            return
        try:
            judged = judge(reply, predictions, shape)
            objects = None if isinstance(judged, str) else making.stage(JudgedCase(source, judged, shape))
            if objects is None:
                made.left_out += 1
            else:
                made.objects += objects
        finally:
            limits.arrays_to.unlink(missing_ok=True)

    def _sources(self, job: PredictionJob) -> Mapping[str, CaseSource]:
        """Return the images of the cohort's cases by the train's names: of those who consent now, and as they were frozen."""
        gatekeeper, admitted = self.gatekeeper, job.prepared.admitted
        found = self.catalogue.cases(
            admitted.definition,
            gatekeeper.offered(admitted),
            self.settings.consent_limit,
            gatekeeper.now(),
        )
        if isinstance(found, Refused):
            return {}
        scope = admitted.definition.scope
        return {
            self.cohort_key.case_id(scope, case.case): case
            for case in found
            if Standing.of((case,)).files <= job.prepared.used.files
        }


def _listed(cohort: Path) -> Iterator[tuple[str, Path]]:
    """Yield the cases of a frozen cohort by the train's names, with their images.

    Raises:
        StateError: its datalist cannot be read.
    """
    try:
        listed = json.loads((cohort / "datalist.json").read_bytes())
        found = sorted(
            (str(entry["case"]), cohort / str(entry["image"])) for split in Split for entry in listed[split]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError("cohort: its documents cannot be read", hint="Freeze the cohort again.") from error
    yield from found
