"""Readiness of a whole catalogue, in the background: facts from the database, headers of CT series from confined processes.

Works through the series in small steps, so that a reading transaction is short and memory bounded. What the files of a series
were found to be is kept by their digests (`SeriesFinding`): the same files are read once, whatever is asked of them later.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from policies.errors import PhtError, StateError
from policies.manifest import DataNeeds, Modality
from policies.policy import ConsentMode, ConsentPurpose
from policies.profiles import DEFAULT_PROFILE
from policies.refusals import RefusalCode
from station.catalogue.catalogue import read_consent
from station.catalogue.consent import ConsentState, check_age, consenting
from station.catalogue.readiness import (
    CONSENT_STALE,
    CONSENT_UNKNOWN,
    CollectionReadiness,
    SeriesFacts,
    SeriesReadiness,
    Tally,
)
from station.catalogue.tables import Clinical, Instance, Label, SeriesFinding
from station.cohorts import DecoderPool, SliceHeader, SourceFile, Unusable, examine_series
from station.cohorts.reading import DECODERS
from station.handover import instance_path
from station.storage import Database

log = logging.getLogger(__name__)

# Findings of another examiner are other findings: count this up when `examine_series` changes what it finds.
_EXAMINER = "1"
_STEP = 200
_PASSING = frozenset(
    {Unusable.UNREADABLE.value, Unusable.DECODER_CRASHED.value, Unusable.DECODER_TIMEOUT.value}
)
"""What may be otherwise next time, and is not kept."""


@dataclass(frozen=True, slots=True)
class ReadinessQuestion:
    """What to look at.

    Attributes:
        collections: with how their patients were asked.
        needs: of one train; None for what would stop any.
        minimum_patients: fewer ready ones than this are too few.
        consent_limit: how old the consent source may be.
    """

    collections: Mapping[str, ConsentMode]
    needs: DataNeeds | None
    minimum_patients: int
    consent_limit: timedelta


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """How far it is, and what was found so far.

    Attributes:
        done, total: series looked at, of how many.
        finished: whether all were.
        failed: whether it ended before, by a fault of the station's.
        read: series whose files had to be read; the others were known.
    """

    done: int = 0
    total: int = 0
    finished: bool = False
    failed: bool = False
    read: int = 0
    collections: tuple[CollectionReadiness, ...] = ()
    series: tuple[SeriesReadiness, ...] = ()
    series_not_listed: int = 0


@dataclass(slots=True)
class ReadinessJob:
    """One look at a time, in a thread of its own.

    Args:
        database: compute's.
        handover: the handover folder, where the files lie.
        clock: the moment it is.
    """

    database: Database
    handover: Path
    clock: Callable[[], datetime]
    _report: ReadinessReport = field(default_factory=ReadinessReport)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def start(self, question: ReadinessQuestion) -> ReadinessReport:
        """Begin to look.

        Raises:
            StateError: an earlier look is under way.
        """
        with self._guard:
            if self._thread is not None and self._thread.is_alive():
                raise StateError(
                    "readiness: a look is under way", hint="Wait for it, or ask for its progress."
                )
            self._stop.clear()
            self._report = ReadinessReport()
            self._thread = threading.Thread(target=self._run, args=(question,), name="readiness", daemon=True)
            self._thread.start()
        return self._report

    def report(self) -> ReadinessReport:
        """Return how far it is."""
        return self._report

    def stop(self) -> None:
        """End a look under way; what it read is kept."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(30)

    def _run(self, question: ReadinessQuestion) -> None:
        try:
            self._look(question)
        except PhtError as error:
            log.error("readiness.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
            self._report = ReadinessReport(failed=True)
        except Exception:  # the outermost boundary of this thread
            log.exception("readiness.bug")
            self._report = ReadinessReport(failed=True)

    def _look(self, question: ReadinessQuestion) -> None:
        with self.database.read() as session:
            consent = read_consent(session)
            keys = _series(session, question.collections)
        why = _register_fault(consent, question.consent_limit, self.clock())
        tally = Tally(question.needs, why, question.minimum_patients)
        done = read = 0
        with DecoderPool(1) as pool:
            for start in range(0, len(keys), _STEP):
                if self._stop.is_set():
                    return
                for series, files in self._step(keys[start : start + _STEP], question, consent):
                    found, fresh = self._found(series, files, pool)
                    read += fresh
                    tally.add(replace(series, found=found))
                    done += 1
                self._report = ReadinessReport(done, len(keys), read=read)
        self._report = ReadinessReport(
            done,
            len(keys),
            finished=True,
            read=read,
            collections=tally.collections(question.collections),
            series=tuple(tally.listed),
            series_not_listed=tally.unlisted,
        )

    def _step(
        self, keys: Sequence[tuple[str, str]], question: ReadinessQuestion, consent: ConsentState | None
    ) -> Iterator[tuple[SeriesFacts, tuple[str, ...]]]:
        uids = [series for _, series in keys]
        profile = question.needs.profile if question.needs else DEFAULT_PROFILE
        with self.database.read() as session:
            instances = session.scalars(
                select(Instance)
                .where(Instance.series_uid.in_(uids), Instance.collection.in_(question.collections))
                .order_by(Instance.collection, Instance.series_uid, Instance.sop_instance_uid)
            ).all()
            labels = session.scalars(select(Label).where(Label.series_uid.in_(uids))).all()
            clinical = session.scalars(
                select(Clinical).where(
                    Clinical.profile == profile,
                    Clinical.collection.in_(question.collections),
                    Clinical.patient.in_({row.patient for row in instances}),
                )
            ).all()
        masks: dict[tuple[str, str], set[str]] = {}
        for label in labels:
            masks.setdefault((label.collection, label.series_uid), set()).update(label.names.split())
        fields = {(row.collection, row.patient, row.study_uid): row.fields for row in clinical}
        for (collection, series_uid), group in groupby(
            instances, lambda row: (row.collection, row.series_uid)
        ):
            rows = list(group)
            first = rows[0]
            mode = question.collections[collection]
            decisions = consent.decisions.get(first.patient, ()) if consent else ()
            facts = SeriesFacts(
                collection=collection,
                series_uid=series_uid,
                patient=first.patient,
                modality=first.modality,
                body_part=first.body_part,
                views=frozenset(row.view_position for row in rows),
                files=len(rows),
                decodable=all(row.transfer_syntax_uid in DECODERS for row in rows),
                recognizable_face=any(row.recognizable_face for row in rows),
                consenting=any(consenting(decisions, (purpose,), mode) for purpose in ConsentPurpose),
                clinical=fields.get((collection, first.patient, first.study_uid)),
                masks=frozenset(masks.get((collection, series_uid), ())),
            )
            yield facts, tuple(row.file for row in rows)

    def _found(
        self, series: SeriesFacts, files: Sequence[str], pool: DecoderPool
    ) -> tuple[Mapping[str, int], bool]:
        """Return what the files were found to be, and whether they had to be read."""
        if series.modality != Modality.CT or not series.decodable:
            return {}, False
        content = digest_of(canonical_json([_EXAMINER, *sorted(files)]))
        with self.database.read() as session:
            known = session.get(SeriesFinding, content)
        if known is not None:
            return known.problems, False
        problems = _examine(files, self.handover, pool)
        if not _PASSING & set(problems):
            with self.database.write() as session:
                session.merge(SeriesFinding(content=content, problems=dict(problems)))
        return problems, True


def _examine(files: Sequence[str], handover: Path, pool: DecoderPool) -> Mapping[str, int]:
    headers: list[SliceHeader] = []
    problems: Counter[str] = Counter()
    for header in pool.headers(SourceFile(instance_path(handover, file), file) for file in files):
        if isinstance(header, Unusable):
            problems[header.value] += 1
        else:
            headers.append(header)
    for finding in examine_series(headers) if headers else ():
        problems[finding.reason.value] += finding.slices
    return problems


def _series(session: Session, collections: Mapping[str, ConsentMode]) -> list[tuple[str, str]]:
    query = (
        select(Instance.collection, Instance.series_uid)
        .where(Instance.collection.in_(collections))
        .group_by(Instance.collection, Instance.series_uid)
        .order_by(func.min(Instance.patient), Instance.series_uid)
    )
    return [(collection, series) for collection, series in session.execute(query)]


def _register_fault(consent: ConsentState | None, limit: timedelta, now: datetime) -> str | None:
    refused = check_age(consent, limit, now)
    if refused is None:
        return None
    return CONSENT_STALE if refused.code is RefusalCode.CONSENT_STALE else CONSENT_UNKNOWN
