"""The life of one order: prepare, then round after round, then finish. Goes on from the checkpoint after any crash.

What a round did is durable in two steps: after aggregation (`checkpoint.json` names the new weights and what the
round has so far) and after evaluation (`rounds.jsonl`). A crash between them asks again; stations answer a repeated
(order, round, kind) with what they recorded, so nothing is computed or released twice.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from orchestrator.federation.aggregation import Update
from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from orchestrator.federation.combining import Combining
from orchestrator.federation.entries import Entry, close_entry, open_entry
from orchestrator.federation.exchange import Exchange, Patience
from orchestrator.federation.orders import ORDER_EXPIRED, RunFolder, RunState
from orchestrator.federation.preparing import let_late_ones_join, prepare
from orchestrator.federation.stages import ask_stage
from orchestrator.federation.told_tables import note_untold, one_at_a_time
from orchestrator.federation.updates import StationUpdates
from policies.blobs import BlobFolder
from policies.wire.instructions import Kind, StationReply

log = logging.getLogger(__name__)

_FINISH_S = 20.0

__all__ = ["Rounds", "RunFailedError"]


class Rounds:
    """One order under way. `run` returns when it is finished."""

    def __init__(self, folder: RunFolder, blobs: BlobFolder, exchange: Exchange) -> None:
        self._run = Carried(folder, blobs, exchange)
        self._order = self._run.order
        self._updates = StationUpdates(folder, blobs)
        self._combining = Combining(self._run)

    def run(self) -> None:
        """Prepare, run the rounds that are left, finish.

        Raises:
            RunFailedError: too few stations, or the average is no model.
            StoppedError: an operator asked to stop, or the process is told to.
            LeaseLostError: the Flower task is not ours any more.
        """
        folder = self._run.folder
        checkpoint = self._read_checkpoint()
        self._combining.clear()
        if folder.rounds.count() < self._order.rounds:
            prepare(self._run)
        for round_ in range(folder.rounds.count() + 1, self._order.rounds + 1):
            checkpoint = self._one_round(round_, checkpoint)
        self.finish()
        self._updates.clear()
        self._combining.forget()
        self._run.show(state=RunState.FINISHED, stage="")

    def finish(self) -> None:
        """Tell every station that the order is over; who cannot be reached hears it from the Flower run's end."""
        self._run.show(stage="finish")
        question = self._run.instruction(Kind.FINISH, 0, None, _FINISH_S)
        stations = [name for name in self._order.stations if name not in self._run.stations.refused]
        patience = Patience(deadline_s=_FINISH_S, enough=len(stations), grace_s=0.0)
        self._run.exchange.ask(question, None, stations, patience, lambda _, answered: answered)

    def _one_round(self, round_: int, checkpoint: Checkpoint) -> Checkpoint:
        if datetime.now(UTC) >= self._order.expires:
            raise RunFailedError(ORDER_EXPIRED)
        let_late_ones_join(self._run)
        started = time.monotonic()
        entry = open_entry(self._run, round_)
        for stage in self._order.stages:
            if stage == "train" and checkpoint.round == round_:
                entry |= checkpoint.entry
                continue
            self._run.show(round=round_, stage=stage)
            answers = ask_stage(self._run, self._updates, Kind(stage), round_, checkpoint.weights, entry)
            if stage == "train":
                checkpoint = self._aggregate(round_, checkpoint, answers, entry)
            self._updates.forget_inline()
        close_entry(entry, self._run.accepted, time.monotonic() - started)
        with one_at_a_time(self._run.folder.path.parent):
            note_untold(entry, self._run.accepted, self._run.folder.path.parent)
            self._run.folder.rounds.append(entry, round_)
        weights = checkpoint.weights
        self._run.show_stations(
            round=round_, stage="", missing=entry["missing"], weights=weights.digest if weights else None
        )
        log.info("round_done", extra={"round": round_, "took_part": len(entry["took_part"])})
        return checkpoint

    def _aggregate(
        self, round_: int, checkpoint: Checkpoint, answers: Mapping[str, StationReply], entry: Entry
    ) -> Checkpoint:
        updates = [
            Update(name, self._updates.path(name, reply.release), reply.num_examples)
            for name, reply in sorted(answers.items())
            if reply.release is not None
        ]
        begun = time.monotonic()
        found = self._combining.combine(round_, checkpoint, updates)
        entry["aggregate_s"] = round(time.monotonic() - begun, 4)
        entry["weights"] = found.weights.model_dump()
        entry["left_out"] = list(found.left_out)
        checkpoint = Checkpoint(round_, found.weights, entry, checkpoint.weights, found.state)
        write_checkpoint(self._run.folder, checkpoint)
        self._combining.settle(checkpoint)
        self._updates.clear()
        return checkpoint

    def _read_checkpoint(self) -> Checkpoint:
        checkpoint = read_checkpoint(self._run.folder, self._run.accepted)
        weights = checkpoint.weights
        if weights is not None and not self._run.blobs.path(weights.digest).exists():
            raise RunFailedError("WEIGHTS_ABSENT")
        self._combining.settle(checkpoint)
        return checkpoint
