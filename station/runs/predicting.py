"""After a run: its warm train marks and measures the hospital's own images, for the hospital alone.

    last evaluation released -> order finished, told outside -> container kept -> asked case by case -> judged -> DICOM, apart
        -> container, cohort and work wiped -> consent and policy once more -> recorded -> in the hospital's folder

Invariants: only where policy, manifest and the hospital's settings all want it; nothing of it is in a release, in the ledger, or in what any
message is answered with; what is asked of consent and policy is asked again when it is put on record (I7). Under a policy with a timing
quantum the run's place, its container and the moments of its records are those of the whole window, whatever the train did in it: how
long it takes is its own to choose, and another order that is refused for want of room must not tell it. An order's lock is not held.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.documents import digest_of
from policies.errors import PhtError, StateError
from policies.manifest import Split
from policies.predictions import Prediction
from policies.refusals import RefusalCode, Refused
from policies.wire.arrays import open_tensor
from station.audit.events import AuditEvent, AuditRecord
from station.catalogue import Catalogue
from station.cohorts import CaseSource
from station.cohorts.unusable import UnusableImage
from station.predictions.book import NewPrediction, PredictionBook
from station.predictions.folder import PredictionFolder, file_name
from station.predictions.judging import Judged, arrays_limit, judge, shape_of
from station.predictions.maker import ObjectMaker, images_of
from station.predictions.model import Origin, Wanted
from station.runs.preparation import Preparation
from station.runs.prepared import Prepared
from station.runs.repository import STATION_ACTOR, Run
from station.runs.usage import note_use
from station.sandbox.mapping import MapReply
from station.sandbox.spec import MIB, ReplyLimits, TrainFailure, TrainRequest

log = logging.getLogger(__name__)

_HEAD_BYTES: Final = 1 << 16
_JOIN_S: Final = 60.0
_LAST_S: Final = 60.0
"""Of the window's end, at most a quarter: nothing is asked then, so that of what was answered objects can still be made."""
_MAKING: Final = 3 / 4
"""The part of that in which they are: making one ends then, done or not, for the window is not to end later than it does."""


@dataclass(slots=True)
class _Made:
    """What came of a run's cases.

    Attributes:
        cases: that the train was asked about.
        failed: for which it did not answer.
        left_out: whose answer was not what is declared, or whose images could not be referred to.
        objects: made, synced, and not kept yet.
    """

    cases: int = 0
    failed: int = 0
    left_out: int = 0
    objects: list[NewPrediction] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.objects)


class Predicting:
    """Asks warm trains whose runs are over.

    Args:
        preparation: makes and unmakes what a run needs.
        catalogue: what there is, and who consents.
        book: what is on record.
        folder: the hospital's; None asks nobody for anything.
    """

    def __init__(
        self,
        preparation: Preparation,
        catalogue: Catalogue,
        book: PredictionBook,
        folder: PredictionFolder | None,
    ) -> None:
        self._preparation = preparation
        self._catalogue = catalogue
        self._book = book
        self._folder = folder
        self._threads: set[threading.Thread] = set()

    def wants(self, prepared: Prepared) -> bool:
        """Whether a run that is over is to be asked; follows from documents, settings and releases, and from nothing a train did since."""
        evaluated = prepared.evaluated
        if self._folder is None or evaluated is None:
            return False
        policy, manifest = prepared.admitted.verified.in_force.policy, prepared.admitted.manifest
        return (
            policy.release.local_predictions
            and bool(manifest.outputs.predictions)
            and not self._book.written(prepared.admitted.verified.digest, evaluated.round)
        )

    def begin(self, run: Run, prepared: Prepared, ended: Callable[[], None]) -> None:
        """Ask in a thread of its own; `ended` is called once, when the train is asked no more, whatever happened."""

        def work() -> None:
            made = _Made()
            try:
                try:
                    self._ask(run, prepared, made)
                finally:
                    # Before anything is kept: how much that is, and so how long it takes, is the train's to choose.
                    _end(ended)
                self._keep(run, prepared, made)
            except PhtError as error:
                log.error("predictions.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
            except Exception:  # the outermost boundary of this thread
                log.exception("predictions.bug")
            finally:
                self._drop(made)
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=work, name=f"predict-{run.order_digest[7:15]}", daemon=True)
        self._threads.add(thread)
        thread.start()

    @property
    def at_work(self) -> bool:
        """Whether anything is asked, made or kept."""
        return bool(self._threads)

    def close(self) -> None:
        """Wait for the threads to end: their containers were ended by whoever stops the station."""
        for thread in list(self._threads):
            thread.join(_JOIN_S)

    def _ask(self, run: Run, prepared: Prepared, made: _Made) -> None:
        """Ask, and make.

        1. Use of the data is audited.
        2. The train is asked case by case, and what it answers becomes objects that nobody sees yet, within the window.
        3. With a quantum, the rest of the window is waited for.

        Raises:
            UnavailableError: the station stops; what was made goes with it.
            StorageError, StateError: the folder, the disk, or the audit.
        """
        if self._folder is None or prepared.evaluated is None:
            raise StateError("nothing is to be predicted")
        moments = self._preparation.moments
        since = moments.now()
        policy = prepared.admitted.verified.in_force.policy
        left_s = self._preparation.clock.left_s(run.order_digest, policy.resources.run_hours)
        window_s = min(60.0 * self._preparation.settings.predictions.minutes, left_s)
        # 1
        self._note_use(run, prepared)
        # 2, 3
        held = window_s if policy.release.timing_quantum_s > 0 else 0.0
        last_s = min(_LAST_S, window_s / 4)
        until = since + window_s - last_s
        with moments.holding(since, held, lambda: prepared.ended_by is not None):
            self._make_all(run, prepared, made, until, until + _MAKING * last_s)

    def _make_all(self, run: Run, prepared: Prepared, made: _Made, until: float, made_by: float) -> None:
        """Make what can be made; a fault ends it, and what was made before is kept: there is one record in any case."""
        try:
            self._make(run, prepared, made, until, made_by)
        except PhtError as error:
            log.error("predictions.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
        except Exception:  # an answer that provokes one must not show in the number of records
            log.exception("predictions.bug")

    def _make(self, run: Run, prepared: Prepared, made: _Made, until: float, made_by: float) -> None:
        if self._folder is None or prepared.evaluated is None:
            return
        weights = prepared.evaluated.weights
        if weights is not None and not weights.is_file():
            # Weights of a later message have taken their place: nobody was told of an evaluation of those.
            return
        most = self._preparation.settings.predictions.max_mib * MIB
        sources = self._sources(prepared)
        moments = self._preparation.moments
        with closing(ObjectMaker(lambda: made_by - moments.now())) as maker:
            for case, image in _listed(prepared.cohort.path):
                source = sources.get(case)
                if source is None:
                    continue
                if self._is_over(prepared, until) or made.size_bytes >= most:
                    return
                try:
                    self._one(run, prepared, made, maker, (case, image, source), until)
                except UnusableImage:
                    made.left_out += 1

    def _is_over(self, prepared: Prepared, until: float) -> bool:
        session = prepared.session
        gone = prepared.ended_by is not None or session is None or not session.alive
        return gone or self._preparation.moments.now() >= until

    def _one(
        self,
        run: Run,
        prepared: Prepared,
        made: _Made,
        maker: ObjectMaker,
        asked: tuple[str, Path, CaseSource],
        until: float,
    ) -> None:
        case, image, source = asked
        session, evaluated = prepared.session, prepared.evaluated
        if session is None or evaluated is None:
            return
        manifest, order = prepared.admitted.manifest, prepared.admitted.order
        predictions, shape = manifest.outputs.predictions, shape_of(image)
        ceilings = self._preparation.settings.ceilings
        limits = ReplyLimits(
            prepared.work / "predicted.safetensors",
            arrays_limit(predictions, shape),
            _HEAD_BYTES,
            keep_free_bytes=ceilings.keep_free_mib * MIB,
        )
        timeout_s = min(
            float(min(manifest.resources.message_timeout_s, ceilings.message_timeout_s)),
            until - self._preparation.moments.now(),
        )
        made.cases += 1
        reply = session.exchange(
            TrainRequest("predict", evaluated.round, dict(order.hyperparameters), evaluated.weights, case),
            limits,
            timeout_s=max(timeout_s, 0.1),
        )
        if isinstance(reply, TrainFailure | MapReply):
            made.failed += 1
            return
        try:
            judged = judge(reply, predictions, shape)
            if isinstance(judged, str):
                made.left_out += 1
                return
            of_case = _Made()
            try:
                whole = self._stage(run, prepared, of_case, maker, (source, judged, shape), made.size_bytes)
            except BaseException:
                self._drop(of_case)
                raise
            if whole:
                made.objects += of_case.objects
            else:
                made.left_out += 1
                self._drop(of_case)
        finally:
            limits.arrays_to.unlink(missing_ok=True)

    def _stage(
        self,
        run: Run,
        prepared: Prepared,
        made: _Made,
        maker: ObjectMaker,
        about: tuple[CaseSource, Judged, tuple[int, ...]],
        already: int,
    ) -> bool:
        """Make the objects of one case; returns whether there was room for all of them, besides the bytes that are there already."""
        source, judged, shape = about
        if self._folder is None or prepared.evaluated is None:
            return False
        admitted = prepared.admitted
        most = self._preparation.settings.predictions.max_mib * MIB
        images = images_of(maker, source)
        keep_free = self._preparation.settings.ceilings.keep_free_mib * MIB
        for prediction in admitted.manifest.outputs.predictions:
            measured = {
                value.name: judged.measured[value.name]
                for value in prediction.values
                if value.name in judged.measured
            }
            if prediction.kind == "measurements" and not measured:
                continue
            origin = self._origin(run, prepared, source, prediction)
            wanted = Wanted(
                prediction=prediction, images=images, origin=origin, shape=shape, measured=measured
            )
            if prediction.kind == "segmentation" and judged.arrays is not None:
                marks = open_tensor(judged.arrays, judged.marks[prediction.name]).tobytes()
                data = maker.segment(wanted, marks)
            else:
                data = maker.measure(wanted)
            if (
                self._folder.free_bytes() < len(data) + keep_free
                or already + made.size_bytes + len(data) > most
            ):
                return False
            name = file_name(run.order_digest, prepared.evaluated.round, origin.instance_uid)
            self._folder.stage(name, data)
            policy = admitted.verified.in_force.policy
            made.objects.append(
                NewPrediction(
                    order_digest=run.order_digest,
                    round=prepared.evaluated.round,
                    case=source.case,
                    patient=source.patient,
                    name=prediction.name,
                    kind=prediction.kind,
                    policy_id=policy.id,
                    purposes=policy.data.consent_purposes,
                    sources=_files_of(source),
                    file=name,
                    digest=digest_of(data),
                    size_bytes=len(data),
                )
            )
        return True

    def _origin(self, run: Run, prepared: Prepared, source: CaseSource, prediction: Prediction) -> Origin:
        admitted, evaluated = prepared.admitted, prepared.evaluated
        round_ = 0 if evaluated is None else evaluated.round
        of = (str(round_), source.case, prediction.name)
        key = self._preparation.cohort_key
        organisation = "".join(
            character
            for character in admitted.manifest.contact.organisation
            if character.isascii() and character.isprintable() and character != "\\"
        )
        return Origin(
            series_uid=key.prediction_uid(run.order_digest, "series", *of),
            instance_uid=key.prediction_uid(run.order_digest, "instance", *of),
            moment=f"{self._preparation.gatekeeper.now():%Y%m%d%H%M%S}",
            station=self._preparation.settings.name,
            train=admitted.manifest.name,
            version=admitted.manifest.version,
            organisation=organisation[:64].strip(),
            image_config_digest=admitted.order.image_config_digest,
            order_digest=run.order_digest,
            round=round_,
        )

    def _sources(self, prepared: Prepared) -> Mapping[str, CaseSource]:
        """Return the images of the cohort's cases by the train's names: of those who consent now, and as they were frozen."""
        preparation, admitted = self._preparation, prepared.admitted
        found = self._catalogue.cases(
            admitted.definition,
            preparation.gatekeeper.offered(admitted),
            preparation.settings.consent_limit,
            preparation.gatekeeper.now(),
        )
        if isinstance(found, Refused):
            return {}
        scope = admitted.definition.scope
        return {
            preparation.cohort_key.case_id(scope, case.case): case
            for case in found
            if _files_of(case) <= prepared.used.files
        }

    def _drop(self, made: _Made) -> None:
        """Remove what was made and is not on record; what is, and could not be put in its place, the next start puts there."""
        if self._folder is None:
            return
        try:
            self._folder.drop(each.file for each in made.objects)
        except PhtError as error:
            log.error("predictions.not_dropped", extra={"reason": type(error).__name__})  # noqa: TRY400

    def _keep(self, run: Run, prepared: Prepared, made: _Made) -> None:
        """Keep what may be kept.

        1. Consent, policy and what ended the run meanwhile are asked once more; one record says what is kept.
        2. What is kept is put in its place.

        Raises:
            StorageError: the folder, the disk, or the audit.
        """
        if self._folder is None:
            return
        preparation = self._preparation
        self._catalogue.sync()
        preparation.gatekeeper.policy_set(fresh=False)
        kept = self._permitted(prepared, made.objects)
        numbers = {
            "round": 0 if prepared.evaluated is None else prepared.evaluated.round,
            "cases": made.cases,
            "failed": made.failed,
            "left_out": made.left_out,
            "made": len(made.objects),
            "kept": len(kept),
            "bytes": sum(each.size_bytes for each in kept),
        }
        self._book.keep(
            kept, self._record(run, AuditEvent.PREDICTIONS_KEPT, numbers), preparation.gatekeeper.now()
        )
        recorded = {each.file for each in kept}
        made.objects = [each for each in made.objects if each.file not in recorded]
        for each in kept:
            self._folder.keep(each.file)

    def _permitted(self, prepared: Prepared, made: list[NewPrediction]) -> list[NewPrediction]:
        """Return what may be kept now: of who still consents, under a policy that is still in force."""
        if prepared.ended_by not in {None, RefusalCode.CONSENT_WITHDRAWN}:
            return []
        gatekeeper = self._preparation.gatekeeper
        if gatekeeper.no_longer_in_force(prepared.admitted.verified) is not None:
            return []
        standing = gatekeeper.consenting(prepared.admitted)
        if isinstance(standing, Refused):
            return []
        return [each for each in made if each.sources <= standing.files]

    def _note_use(self, run: Run, prepared: Prepared) -> None:
        policy, now = prepared.admitted.verified.in_force.policy, self._preparation.gatekeeper.now()
        numbers = {
            "round": 0 if prepared.evaluated is None else prepared.evaluated.round,
            "patients": prepared.counts.patients,
        }
        self._book.note(
            self._record(
                run, AuditEvent.DATA_USED, numbers, f"stage predict cohort {prepared.cohort.digest} "
            ),
            lambda session: note_use(session, run.order_digest, policy, prepared.cohort, now),
        )

    @staticmethod
    def _record(run: Run, event: AuditEvent, numbers: dict[str, int], words: str = "") -> AuditRecord:
        return AuditRecord(
            event=event,
            actor=STATION_ACTOR,
            on_behalf_of=run.requester,
            purpose=run.purpose,
            object=run.order_digest,
            numbers=numbers,
            detail=f"{words}policy {run.policy_id} v{run.policy_version}",
        )


def _end(ended: Callable[[], None]) -> None:
    try:
        ended()
    except PhtError as error:
        log.error("predictions.not_ended", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others


def _files_of(case: CaseSource) -> frozenset[tuple[str, str, str | None]]:
    return frozenset((case.patient, case.case, file.digest) for file in case.files)


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
