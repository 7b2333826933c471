"""Drives one order: prepare, then round after round, then finish. Goes on from the checkpoint after any crash.

What a round did is durable in two steps: after aggregation (`checkpoint.json` names the new weights and what the
round has so far) and after evaluation (`rounds.jsonl`). A crash between them asks again; stations answer a repeated
(order, round, kind) with what they recorded, so nothing is computed or released twice.
"""

import logging
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.federation.aggregation import (
    NotFiniteError,
    Update,
    aggregate,
    make_strategy,
    weighted_means,
)
from orchestrator.federation.exchange import Answered, Exchange, Missing, Outcome, Patience
from orchestrator.federation.orders import (
    AcceptedOrder,
    FolderQueue,
    RunFolder,
    RunProgress,
    RunState,
    weights_of,
)
from orchestrator.federation.replies import Rejected, check_release, check_reply, sum_tables
from orchestrator.federation.reviews import SLACK_S, StageReviews
from policies.bundle import BlobFolder
from policies.errors import PhtError, StateError, WireError
from policies.files import write_atomically
from policies.refusals import RefusalCode
from policies.wire.arrays import read_layout
from policies.wire.instructions import MAX_INLINE_ARRAYS_BYTES, Blob, Instruction, Kind, StationReply
from policies.wire.releases import ReleaseTensor, release_tensors

log = logging.getLogger(__name__)

_FINISH_S = 20.0
_PREPARE_SILENCE_S = 5.0
_LATE_JOINER_S = 2.0
_MARGIN_S = 120.0
_SCORER_START_S = 180.0
_OVER = frozenset(
    {RefusalCode.TRAIN_FAILED_TOO_OFTEN, RefusalCode.RUN_TIME_SPENT, RefusalCode.RUN_STOPPED, "STOPPED"}
)
"""A station that answers one of these has ended its run."""


class RunFailedError(PhtError):
    """The order cannot go on; `message` is the code that its page shows."""


class Rounds:
    """One order under way. `run` returns when it is finished."""

    def __init__(self, folder: RunFolder, blobs: BlobFolder, exchange: Exchange) -> None:
        self._folder = folder
        self._blobs = blobs
        self._exchange = exchange
        self._accepted: AcceptedOrder = folder.read_order()
        self._order = self._accepted.order
        self._progress: RunProgress = folder.read_progress()
        self._strategy = make_strategy(self._order.strategy) if "train" in self._order.stages else None
        self._ready: set[str] = set()
        self._refused: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        # Of stations that answered with a code; what they call the run.
        self._correlation: dict[str, str] = {}
        self._releases: set[str] = set()

    def run(self) -> None:
        """Prepare, run the rounds that are left, finish.

        Raises:
            RunFailedError: too few stations, or the average is no model.
            StoppedError: an operator asked to stop, or the process is told to.
            LeaseLostError: the Flower task is not ours any more.
        """
        checkpoint = self._read_checkpoint()
        if len(self._folder.read_rounds()) < self._order.rounds:
            self._prepare()
        for round_ in range(len(self._folder.read_rounds()) + 1, self._order.rounds + 1):
            checkpoint = self._one_round(round_, checkpoint)
        self.finish()
        # One that a station sent again after it was averaged.
        self._forget_releases(digest.removeprefix("sha256:") for digest in self._releases)
        self._show(state=RunState.FINISHED, stage="")

    def finish(self) -> None:
        """Tell every station that the order is over; who cannot be reached hears it from the Flower run's end."""
        self._show(stage="finish")
        question = self._instruction(Kind.FINISH, 0, None, _FINISH_S)
        stations = [name for name in self._order.stations if name not in self._refused]
        patience = Patience(deadline_s=_FINISH_S, enough=len(stations), grace_s=0.0)
        self._exchange.ask(question, None, stations, patience, lambda _, answered: answered)

    # -- prepare ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        timing, needed = self._accepted.timing, self._order.minimum_stations
        self._show(state=RunState.RUNNING, stage="prepare")
        self._ask_ready(self._order.stations, timing.prepare_s, needed, timing.prepare_grace_s)
        if len(self._ready) < needed:
            raise RunFailedError("TOO_FEW_STATIONS_ACCEPTED")

    def _ask_ready(self, stations: Sequence[str], deadline_s: float, enough: int, grace_s: float) -> None:
        question = self._instruction(Kind.PREPARE, 0, None, deadline_s)
        # Answered at once by a station that is there: a silent one is just coming, and is asked again soon.
        patience = Patience(
            deadline_s=deadline_s, enough=enough, grace_s=grace_s, silence_s=_PREPARE_SILENCE_S
        )

        def judge(name: str, answered: Answered) -> Outcome:
            verdict = check_reply(answered.reply, question, self._accepted.manifest)
            if isinstance(verdict, Rejected):
                return Missing(verdict.code)
            self._ready.add(name)
            self._show(accepted=tuple(sorted(self._ready)))
            return answered

        for name, outcome in self._exchange.ask(question, None, stations, patience, judge).items():
            self._note_correlation(name, outcome)
            if isinstance(outcome, Answered):
                self._waiting.pop(name, None)
            elif outcome.code in {"LATE", "LOST", RefusalCode.OPERATOR_PENDING}:
                self._waiting[name] = outcome.code
            else:
                self._refused[name] = outcome.code
        self._show(missing=self._refused | self._waiting, correlation=self._correlation)

    def _note_correlation(self, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, Missing) and outcome.correlation_id:
            self._correlation[name] = outcome.correlation_id

    # -- one round -------------------------------------------------------------------------------------------

    def _one_round(self, round_: int, checkpoint: dict[str, Any]) -> dict[str, Any]:
        if late := self._exchange.online(sorted(self._waiting)):
            # Who was late or restarting may join now; the others wait no longer than a moment.
            self._ask_ready(late, _LATE_JOINER_S, 0, _LATE_JOINER_S)
        started = time.monotonic()
        entry: dict[str, Any] = {"round": round_, "missing": self._refused | self._waiting, "took_part": []}
        weights = _blob(checkpoint.get("weights"))
        for stage in self._order.stages:
            if stage == "train" and checkpoint.get("round") == round_:
                entry |= checkpoint["entry"]
                continue
            self._show(round=round_, stage=stage)
            answers = self._ask_stage(Kind(stage), round_, weights, entry)
            if stage == "train":
                weights, checkpoint = self._aggregate(round_, checkpoint, answers, entry)
            self._forget_replies()
        self._close_entry(entry, time.monotonic() - started)
        rounds = self._folder.read_rounds()[: round_ - 1]
        self._folder.write_rounds([*rounds, entry])
        self._show(
            round=round_,
            stage="",
            missing=entry["missing"],
            correlation=self._correlation,
            weights=weights.digest if weights else None,
        )
        log.info("round_done", extra={"round": round_, "took_part": len(entry["took_part"])})
        return checkpoint

    def _ask_stage(
        self, kind: Kind, round_: int, weights: Blob | None, entry: dict[str, Any]
    ) -> dict[str, StationReply]:
        """Ask who takes part; write what they released into the round's entry."""
        deadline_s = self._answer_s(kind)
        question = self._instruction(kind, round_, weights if kind is not Kind.ANALYSE else None, deadline_s)
        inbound = self._blobs.path(weights.digest) if weights and kind is Kind.TRAIN else None
        expected = self._expected(inbound) if inbound is not None else ()
        patience = Patience(
            deadline_s=deadline_s,
            enough=self._order.minimum_stations,
            grace_s=self._accepted.timing.straggler_s,
            quantum_s=self._accepted.release.timing_quantum_s,
        )

        def judge(_: str, answered: Answered) -> Outcome:
            verdict = check_reply(answered.reply, question, self._accepted.manifest)
            release = answered.reply.release
            if release is not None:
                self._releases.add(release.digest)
            if not isinstance(verdict, Rejected) and release is not None and inbound is not None:
                path = self._release_path(release, answered.arrays)
                if path is None:
                    return Missing("RELEASE_ABSENT")
                verdict = check_release(release, path, inbound, expected)
            return Missing(verdict.code) if isinstance(verdict, Rejected) else answered

        arrays = self._inline(question.weights)
        reviews = StageReviews(self._folder, (round_, kind.value), self._review_s(), self._show_reviews)
        outcomes = self._exchange.ask(question, arrays, sorted(self._ready), patience, judge, reviews)
        self._show_reviews({})
        answers = {name: found.reply for name, found in outcomes.items() if isinstance(found, Answered)}
        for name, found in outcomes.items():
            self._note_correlation(name, found)
            if isinstance(found, Missing):
                entry["missing"] |= {name: found.code}
                self._reconsider(name, found.code)
        _write_stage(entry, kind.value, answers)
        if len(answers) < self._order.minimum_stations:
            self._show(missing=entry["missing"], correlation=self._correlation)
            raise RunFailedError("TOO_FEW_STATIONS_ANSWERED")
        return answers

    def _reconsider(self, name: str, code: str) -> None:
        """A station that lost its state is asked to prepare again; one whose run ended is not asked any more."""
        if code == RefusalCode.INSTRUCTION_UNKNOWN_ORDER:
            self._ready.discard(name)
            self._waiting[name] = code
        elif code in _OVER:
            self._ready.discard(name)
            self._refused[name] = code

    def _aggregate(
        self,
        round_: int,
        checkpoint: dict[str, Any],
        answers: Mapping[str, StationReply],
        entry: dict[str, Any],
    ) -> tuple[Blob, dict[str, Any]]:
        inbound = _blob(checkpoint.get("weights"))
        if inbound is None or self._strategy is None:
            raise StateError("training without weights")
        updates = [
            Update(name, self._stored_release(reply.release), reply.num_examples)
            for name, reply in sorted(answers.items())
            if reply.release is not None
        ]
        begun = time.monotonic()
        try:
            path = self._blobs.path(inbound.digest)
            weights = aggregate(self._strategy, round_, path, updates, path.parent)
        except NotFiniteError as error:
            raise RunFailedError("AGGREGATE_NOT_FINITE") from error
        entry["aggregate_s"] = round(time.monotonic() - begun, 4)
        entry["weights"] = weights.model_dump()
        checkpoint = {
            "round": round_,
            "weights": weights.model_dump(),
            "previous_weights": inbound.model_dump(),
            "entry": entry,
            "releases": sorted(self._releases),
        }
        self._folder.write_json("checkpoint.json", checkpoint)
        self._forget_releases([update.delta.name for update in updates])
        return weights, checkpoint

    def _close_entry(self, entry: dict[str, Any], wall_s: float) -> None:
        took_part = set.intersection(
            *(set(entry[stage]) for stage in self._order.stages if entry.get(stage) is not None)
        )
        entry["took_part"] = sorted(took_part)
        entry["means"] = {
            stage: weighted_means(entry[stage], entry["num_examples"]) for stage in self._order.stages
        }
        entry["summed_tables"] = {
            stage: sum_tables(list(tables.values()), self._accepted.manifest)
            for stage, tables in entry.get("tables", {}).items()
        }
        critical_s = sum(max(entry["compute_s"][stage].values(), default=0.0) for stage in self._order.stages)
        entry["wall_s"] = round(wall_s, 4)
        # compute_s comes in the policy's quantum: the difference is an estimate, and never below zero.
        entry["overhead_s"] = round(max(0.0, wall_s - critical_s), 4)

    # -- small things ----------------------------------------------------------------------------------------

    def _instruction(self, kind: Kind, round_: int, weights: Blob | None, deadline_s: float) -> Instruction:
        fields: dict[str, Any] = {"order": self._accepted.envelope} if kind is Kind.PREPARE else {}
        return Instruction(
            kind=kind,
            order_digest=self._accepted.order_digest,
            round=round_,
            config=dict(self._order.hyperparameters),
            weights=weights,
            deadline_s=max(1, min(int(deadline_s), 7 * 24 * 3600)),
            **fields,
        )

    def _expected(self, inbound: Path) -> tuple[ReleaseTensor, ...]:
        outputs, rules = self._accepted.manifest.outputs.tensors, self._accepted.release.tensors
        if outputs is None or rules is None:
            return ()
        try:
            return release_tensors(outputs, rules, read_layout(inbound).tensors)
        except WireError as error:
            raise RunFailedError("WEIGHTS_DO_NOT_FIT") from error

    def _answer_s(self, kind: Kind) -> float:
        """How long a station may take over one message, by what order and policy say.

        It computes, and scores what was trained where the policy has a limit. With a quantum each of the moments that it waits for
        is rounded up, and a container that is started for the message says hello at one of its own.
        """
        given = self._accepted.timing.answer_s
        if given is not None:
            return given
        rules, timeout_s = self._accepted.release, float(self._accepted.manifest.resources.message_timeout_s)
        scored = rules.membership_limit is not None and kind is Kind.TRAIN
        # Started again once where it fails; asked for both sets of weights.
        steps = [timeout_s, 2 * (_SCORER_START_S + 2 * timeout_s)] if scored else [timeout_s]
        quantum = rules.timing_quantum_s
        if quantum == 0:
            return sum(steps) + _MARGIN_S
        quanta = sum(math.floor(step / quantum) + 1 for step in steps)
        # What follows the last step has one quantum, where that has one of its own; the hello has one.
        quanta += rules.quanta_of(kind.value) - len(steps) + 1
        return quanta * quantum + _MARGIN_S

    def _review_s(self) -> float:
        given = self._accepted.timing.review_s
        return given if given is not None else self._accepted.release.review_hours * 3600.0 + SLACK_S

    def _show_reviews(self, until: Mapping[str, datetime]) -> None:
        if until != self._progress.reviewing:
            self._show(reviewing=dict(until))

    def _read_checkpoint(self) -> dict[str, Any]:
        checkpoint = self._folder.read_json("checkpoint.json")
        if checkpoint is None:
            initial = self._order.initial_weights
            checkpoint = {
                "round": 0,
                "weights": {"digest": initial.digest, "size": initial.size} if initial else None,
            }
        self._releases |= set(checkpoint.get("releases", ()))
        weights = _blob(checkpoint.get("weights"))
        if weights is not None and not self._blobs.path(weights.digest).exists():
            raise RunFailedError("WEIGHTS_ABSENT")
        return checkpoint

    def _inline(self, weights: Blob | None) -> bytes | None:
        if weights is None or weights.size > MAX_INLINE_ARRAYS_BYTES:
            return None
        return self._blobs.path(weights.digest).read_bytes()

    def _release_path(self, release: Blob, arrays: bytes | None) -> Path | None:
        if arrays is not None:
            self._folder.replies.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._inline_path(release), arrays, mode=0o600)
        path = self._stored_release(release)
        return path if path.exists() else None

    def _stored_release(self, release: Blob | None) -> Path:
        if release is None:
            raise StateError("a training reply without a release")
        inline = self._inline_path(release)
        return inline if inline.exists() else self._blobs.path(release.digest)

    def _inline_path(self, release: Blob) -> Path:
        return self._folder.replies / release.digest.removeprefix("sha256:")

    def _forget_releases(self, names: Iterable[str]) -> None:
        """A station's own update is of no use after the average, and is not kept.

        A station chooses what it calls its release: what some order uses as weights is not deleted for it.
        """
        used: set[str] = set()
        for folder in FolderQueue(self._folder.path.parent).folders():
            used |= weights_of(folder, folder.read_order())
        for name in names:
            if "sha256:" + name not in used:
                self._blobs.path("sha256:" + name).unlink(missing_ok=True)

    def _forget_replies(self) -> None:
        shutil.rmtree(self._folder.replies, ignore_errors=True)

    def _show(self, **changes: Any) -> None:  # noqa: ANN401 - fields of RunProgress
        self._progress = self._progress.model_copy(update=changes)
        self._folder.write_progress(self._progress)


def _write_stage(entry: dict[str, Any], stage: str, answers: Mapping[str, StationReply]) -> None:
    entry[stage] = {
        name: {key: float(value) for key, value in reply.metrics.items()} for name, reply in answers.items()
    }
    entry.setdefault("compute_s", {})[stage] = {name: reply.compute_s for name, reply in answers.items()}
    entry["num_examples"] = entry.get("num_examples", {}) | {
        name: reply.num_examples for name, reply in answers.items()
    }
    entry.setdefault("tables", {})[stage] = {
        name: reply.tables for name, reply in answers.items() if reply.tables
    }
    entry["counts"] = entry.get("counts", {}) | {name: reply.counts for name, reply in answers.items()}
    heads = {
        name: {"egress_ledger": reply.egress_ledger_head, "audit": reply.audit_head}
        for name, reply in answers.items()
    }
    entry["heads"] = entry.get("heads", {}) | heads


def _blob(value: object) -> Blob | None:
    return Blob.model_validate(value) if isinstance(value, dict) else None
