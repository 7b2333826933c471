"""One question of a round: put to who takes part, each answer judged, what they released written down."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.deadlines import answer_s, review_s
from orchestrator.federation.entries import Entry, write_stage
from orchestrator.federation.exchange import Answered, Judge, Missing, Outcome, Patience
from orchestrator.federation.replies import Rejected, check_release, check_reply
from orchestrator.federation.reviews import StageReviews
from orchestrator.federation.updates import StationUpdates
from policies.errors import WireError
from policies.wire.arrays import read_layout
from policies.wire.instructions import MAX_INLINE_ARRAYS_BYTES, Blob, Instruction, Kind, StationReply
from policies.wire.releases import ReleaseTensor, release_tensors


def ask_stage(
    run: Carried, updates: StationUpdates, kind: Kind, round_: int, weights: Blob | None, entry: Entry
) -> dict[str, StationReply]:
    """Ask who takes part; write what they released into the round's entry.

    Raises:
        RunFailedError: too few answered.
    """
    deadline_s = answer_s(run.accepted, kind)
    question = run.instruction(kind, round_, weights if kind is not Kind.ANALYSE else None, deadline_s)
    patience = Patience(
        deadline_s=deadline_s,
        enough=run.order.minimum_stations,
        grace_s=run.accepted.timing.straggler_s,
        quantum_s=run.accepted.release.timing_quantum_s,
    )

    def show_reviews(until: Mapping[str, datetime]) -> None:
        if until != run.progress.reviewing:
            run.show(reviewing=dict(until))

    reviews = StageReviews(run.folder, (round_, kind.value), review_s(run.accepted), show_reviews)
    outcomes = run.exchange.ask(
        question,
        _inline(run, question.weights),
        sorted(run.stations.ready),
        patience,
        _judge(run, updates, question),
        reviews,
    )
    show_reviews({})
    answers = {name: found.reply for name, found in outcomes.items() if isinstance(found, Answered)}
    for name, found in outcomes.items():
        run.stations.note_correlation(name, found)
        if isinstance(found, Missing):
            entry["missing"] |= {name: found.code}
            run.stations.reconsider(name, found.code)
    write_stage(entry, kind.value, answers)
    if len(answers) < run.order.minimum_stations:
        run.show(missing=entry["missing"], correlation=run.stations.correlation)
        raise RunFailedError("TOO_FEW_STATIONS_ANSWERED")
    return answers


def _judge(run: Carried, updates: StationUpdates, question: Instruction) -> Judge:
    weights = question.weights
    inbound = run.blobs.path(weights.digest) if weights and question.kind is Kind.TRAIN else None
    expected = _expected(run, inbound) if inbound is not None else ()

    def judge(_: str, answered: Answered) -> Outcome:
        verdict = check_reply(answered.reply, question, run.accepted.manifest)
        release = answered.reply.release
        if release is not None:
            updates.seen.add(release.digest)
        if not isinstance(verdict, Rejected) and release is not None and inbound is not None:
            path = updates.keep(release, answered.arrays)
            if path is None:
                return Missing("RELEASE_ABSENT")
            verdict = check_release(release, path, inbound, expected)
        return Missing(verdict.code) if isinstance(verdict, Rejected) else answered

    return judge


def _expected(run: Carried, inbound: Path) -> tuple[ReleaseTensor, ...]:
    outputs, rules = run.accepted.manifest.outputs.tensors, run.accepted.release.tensors
    if outputs is None or rules is None:
        return ()
    try:
        return release_tensors(outputs, rules, read_layout(inbound).tensors)
    except WireError as error:
        raise RunFailedError("WEIGHTS_DO_NOT_FIT") from error


def _inline(run: Carried, weights: Blob | None) -> bytes | None:
    if weights is None or weights.size > MAX_INLINE_ARRAYS_BYTES:
        return None
    return run.blobs.path(weights.digest).read_bytes()
