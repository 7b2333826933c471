"""One question of a round: put to who takes part, each answer judged, what they released written down."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from orchestrator.federation.answers import Answered, Judge, Looking, Missing, Outcome, Patience
from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.deadlines import answer_s, review_s
from orchestrator.federation.entries import Entry, write_absences, write_deadlines, write_stage
from orchestrator.federation.preparing import note_late_acceptances
from orchestrator.federation.replies import Accepted, Rejected, Verdict, check_reply, settled_examples
from orchestrator.federation.reviews import StageReviews
from orchestrator.federation.speeds import StageSpeeds
from orchestrator.federation.updates import StationUpdates
from orchestrator.federation.updates_check import DIGEST, check_release
from policies.documents import digest_of_file
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
    speeds = StageSpeeds(run.speeds, kind.value, run.accepted.release.timing_quantum_s, run.lates)
    patience = Patience(
        deadline_s=deadline_s,
        enough=run.order.minimum_stations,
        grace_s=run.accepted.timing.straggler_s,
        quantum_s=run.accepted.release.timing_quantum_s,
        speeds=speeds,
    )

    def show_reviews(until: Mapping[str, datetime], looked_at: datetime | None) -> None:
        if until != run.progress.reviewing:
            run.show(reviewing=dict(until), looked_at=looked_at)

    reviews = StageReviews(
        run.folder,
        (round_, kind.value),
        review_s(run.accepted),
        show_reviews,
        # What a policy asks for is waited for each time; what a hospital adds holds a run up once.
        once=not run.accepted.release.human_review,
    )
    outcomes = run.exchange.ask(
        question,
        _inline(run, question.weights),
        sorted(run.stations.ready),
        patience,
        _judge(run, updates, question),
        reviews,
    )
    reviews.close()
    show_reviews({}, None)
    answers = {name: found.reply for name, found in outcomes.items() if isinstance(found, Answered)}
    for name, found in outcomes.items():
        if isinstance(found, Answered):
            run.stations.answered(name)
            continue
        entry["missing"] |= {name: found.code}
        run.stations.note(name, found)
        if found.offence:
            run.exclude(name, found.code)
        else:
            run.stations.reconsider(name, found.code)
    note_late_acceptances(run)
    write_stage(entry, kind.value, answers)
    write_absences(run, entry, kind.value, answers)
    write_deadlines(run, entry, speeds)
    run.speeds.flush()
    if len(answers) < run.order.minimum_stations:
        run.show_stations(missing=entry["missing"])
        raise RunFailedError("TOO_FEW_STATIONS_ANSWERED")
    return answers


def _judge(run: Carried, updates: StationUpdates, question: Instruction) -> Judge:
    weights = question.weights
    inbound = run.blobs.path(weights.digest) if weights and question.kind is Kind.TRAIN else None
    expected = _expected(run, inbound) if inbound is not None else ()
    rules = run.accepted.release

    def look(release: Blob, path: Path) -> Verdict | Missing:
        verdict = check_release(release, path, inbound, expected, rules) if inbound else Accepted()
        if verdict == Rejected(DIGEST) and _is_damaged(path, release):
            # The front took no bytes under another digest: what is on our disk is damaged by us.
            return Missing(DIGEST, again=True)
        return verdict

    def settle(name: str, answered: Answered, verdict: Verdict | Missing) -> Outcome:
        reply = answered.reply
        if isinstance(verdict, Missing):
            if reply.release is not None:
                updates.forget(name, reply.release)
            return verdict
        key = (question.kind.value, name)
        examples = settled_examples(run.examples.get(key), reply.num_examples)
        if isinstance(verdict, Rejected) or examples is None:
            code = verdict.code if isinstance(verdict, Rejected) else "REPLY_EXAMPLES_CHANGED"
            run.exclude(name, code)
            return Missing(code, offence=True)
        run.examples[key] = examples
        return Answered(reply.model_copy(update={"num_examples": examples}), answered.arrays)

    def judge(name: str, answered: Answered) -> Outcome | Looking:
        release = answered.reply.release
        verdict = check_reply(answered.reply, question, run.accepted.manifest, rules)
        if isinstance(verdict, Rejected) or release is None or inbound is None:
            return settle(name, answered, verdict)
        path = updates.keep(name, release, answered.arrays)
        if path is None:
            return Missing("RELEASE_ABSENT", again=True)
        if answered.arrays is not None:
            # Small, and not from our disk: whatever is wrong with it is its sender's.
            return settle(name, answered, check_release(release, path, inbound, expected, rules))
        return Looking(partial(look, release, path), partial(settle, name, answered))

    return judge


def _is_damaged(path: Path, release: Blob) -> bool:
    # Whole bytes of another size than the reply says are the reply's fault.
    return digest_of_file(path) != release.digest


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
