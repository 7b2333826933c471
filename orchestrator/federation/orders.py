"""Accepted orders and how far they are: a folder per order, read by the portal, written by the run worker.

    runs/<order hex>/order.json        the accepted order, never changed
                     state.json        state, round, Flower run, message; replaced as a whole
                     rounds.jsonl      one line per finished round
                     checkpoint.json   where to go on: round, weights, what the round has so far
                     reviews.json      since when a person looks at which station
                     task.json         the claimed Flower task with its token; mode 0600
                     history.jsonl     each change of state with its moment (`history`)
                     stop              present when an operator asked to stop
                     replies/          bytes of arrays while a round is aggregated

States: queued -> running -> finished | failed | stopped; failed and stopped -> queued by `resume`.
Every file is written under another name, synced and renamed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from orchestrator.federation.history import note_change
from orchestrator.federation.round_log import RoundLog
from policies.documents import Digest, Moment, Name, StrictModel, parse_json
from policies.errors import DocumentError, NotFoundError, StateError, UsageError
from policies.files import write_atomically
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import ReleaseRules

_MAX_FILE_BYTES = 8 * 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]


class Timing(StrictModel):
    """How long the rounds wait, in seconds."""

    prepare_s: Seconds = Field(
        default=24 * 3600.0, description="For enough stations to accept; operators may have to."
    )
    prepare_grace_s: Seconds = Field(default=60.0, description="For the rest, once enough have accepted.")
    answer_s: Seconds | None = Field(
        default=None,
        description="For one answer; where not given, the manifest's message timeout, what the policy adds to it (the scoring of an "
        "update, its quantum) and two minutes.",
    )
    straggler_s: Seconds = Field(
        default=120.0,
        description="For the rest of a round, once enough have answered; at least as long as they took.",
    )
    review_s: Seconds | None = Field(
        default=None,
        description="For a station where a person looks at what is to leave; the policy's review_hours and ten minutes where "
        "not given.",
    )


class AcceptedOrder(StrictModel):
    """A run order whose signatures, policy and stations the orchestrator has checked."""

    order_digest: Digest = Field(description="Of the envelope's payload: the order's own bytes.")
    envelope: Annotated[str, Field(max_length=256 * 1024)] = Field(
        description="The signed order as DSSE, JSON text."
    )
    order: RunOrder
    manifest: TrainManifest
    release: ReleaseRules = Field(
        description="The policy's: which tensors a release holds, and how precisely."
    )
    nodes: dict[Name, Annotated[int, Field(ge=1, lt=2**64)]] = Field(
        description="Flower's node id of each station."
    )
    timing: Timing = Field(default_factory=Timing)


class RunState(StrEnum):
    """How far an order is."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens without `resume`."""
        return self in {RunState.FINISHED, RunState.FAILED, RunState.STOPPED}


class RunProgress(StrictModel):
    """What an order's page shows."""

    state: RunState = RunState.QUEUED
    round: Annotated[int, Field(ge=0)] = 0
    rounds: Annotated[int, Field(ge=0)] = 0
    stage: Literal["", "prepare", "train", "evaluate", "analyse", "finish"] = ""
    accepted: tuple[str, ...] = ()
    missing: dict[str, str] = Field(
        default_factory=dict, description="Station to code: why it does not take part."
    )
    correlation: dict[str, str] = Field(
        default_factory=dict,
        description="Station to what it calls its run: its operator finds by that why it failed there.",
    )
    reviewing: dict[str, Moment] = Field(
        default_factory=dict,
        description="Stations where a person looks at what is to leave, to when they are waited for.",
    )
    code: str = Field(default="", description="Why it failed: a word of a closed list.")
    flower_run: Annotated[int, Field(ge=0, lt=2**64)] = 0
    flower_runs: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many Flower runs carried the order."
    )
    restarts: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How often its ServerApp was started again."
    )
    weights: Digest | None = None


class OrderQueue(Protocol):
    """Where the run worker gets its orders and says how they go."""

    def next_order(self) -> AcceptedOrder | None:
        """An order that waits or was left running, the oldest first; not one that this worker has in hand."""

    def report(self, order_digest: str, progress: RunProgress) -> None:
        """Say how far an order is."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one order."""

    path: Path

    @property
    def order_digest(self) -> str:
        """Which order this is."""
        return "sha256:" + self.path.name

    @property
    def task(self) -> Path:
        """The claimed task with its token."""
        return self.path / "task.json"

    @property
    def replies(self) -> Path:
        """Arrays of the round under way."""
        return self.path / "replies"

    def read_order(self) -> AcceptedOrder:
        """Read the accepted order.

        Raises:
            StateError: missing or damaged.
        """
        return _read(AcceptedOrder, self.path / "order.json")

    def read_progress(self) -> RunProgress:
        """Read how far the order is; queued where nothing is written yet."""
        if not (self.path / "state.json").exists():
            return RunProgress()
        return _read(RunProgress, self.path / "state.json")

    def write_progress(self, progress: RunProgress) -> None:
        """Replace how far the order is; another state than before goes into its history first."""
        if self._state() != progress.state:
            note_change(self.path, progress.state, progress.round, progress.code)
        write_atomically(self.path / "state.json", progress.model_dump_json(indent=1).encode())

    def _state(self) -> object:
        return (self.read_json("state.json") or {}).get("state")

    @property
    def rounds(self) -> RoundLog:
        """The finished rounds."""
        return RoundLog(self.path / "rounds.jsonl")

    def read_rounds(self) -> list[dict[str, Any]]:
        """The finished rounds, oldest first; a line cut off by a crash is left out."""
        return self.rounds.read()

    def write_rounds(self, rounds: list[dict[str, Any]]) -> None:
        """Replace the finished rounds."""
        lines = [json.dumps(entry, sort_keys=True, allow_nan=False) + "\n" for entry in rounds]
        write_atomically(self.path / "rounds.jsonl", "".join(lines).encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a small state file; None where there is none or it is damaged."""
        try:
            value = parse_json((self.path / name).read_bytes(), what=name, max_bytes=_MAX_FILE_BYTES)
        except (FileNotFoundError, DocumentError):
            return None
        return value if isinstance(value, dict) else None

    def write_json(self, name: str, value: dict[str, Any], *, private: bool = False) -> None:
        """Replace a small state file."""
        data = json.dumps(value, sort_keys=True, allow_nan=False).encode()
        write_atomically(self.path / name, data, mode=0o600 if private else 0o644)

    def stop_wanted(self) -> bool:
        """Whether an operator asked to stop."""
        return (self.path / "stop").exists()


@dataclass(slots=True)
class FolderQueue:
    """`OrderQueue` over a folder of run folders. The portal submits and reads; one worker takes and reports."""

    runs: Path
    _in_hand: set[str] = field(default_factory=set)

    def submit(self, accepted: AcceptedOrder) -> RunFolder:
        """Put an accepted order in the queue. The same order twice is one order.

        Raises:
            UsageError: it names a station without a node id.
        """
        without = [name for name in accepted.order.stations if name not in accepted.nodes]
        if without:
            raise UsageError(f"no node id for {', '.join(without)}", hint="Register the station first.")
        folder = self.folder(accepted.order_digest)
        if not (folder.path / "order.json").exists():
            folder.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            folder.write_progress(RunProgress(rounds=accepted.order.rounds))
            write_atomically(folder.path / "order.json", accepted.model_dump_json(indent=1).encode())
        return folder

    def folder(self, order_digest: str) -> RunFolder:
        """The folder of an order, there or not."""
        return RunFolder(self.runs / order_digest.removeprefix("sha256:"))

    def folders(self) -> Iterator[RunFolder]:
        """All orders, oldest first."""
        if not self.runs.is_dir():
            return
        found = [path for path in self.runs.iterdir() if (path / "order.json").exists()]
        for path in sorted(found, key=lambda path: (path / "order.json").stat().st_mtime_ns):
            yield RunFolder(path)

    def next_order(self) -> AcceptedOrder | None:
        """See `OrderQueue.next_order`."""
        for folder in self.folders():
            if folder.order_digest in self._in_hand or folder.read_progress().state.is_over:
                continue
            self._in_hand.add(folder.order_digest)
            return folder.read_order()
        return None

    def report(self, order_digest: str, progress: RunProgress) -> None:
        """See `OrderQueue.report`."""
        self.folder(order_digest).write_progress(progress)
        if progress.state.is_over:
            self._in_hand.discard(order_digest)

    def request_stop(self, order_digest: str) -> None:
        """Ask that an order stops; its stations are told to finish.

        Raises:
            NotFoundError: there is no such order.
        """
        write_atomically(self._existing(order_digest).path / "stop", b"")

    def resume(self, order_digest: str) -> None:
        """Queue a failed or stopped order again; it goes on from its checkpoint.

        Raises:
            NotFoundError: there is no such order.
            UsageError: it is not failed or stopped.
        """
        folder = self._existing(order_digest)
        progress = folder.read_progress()
        if progress.state not in {RunState.FAILED, RunState.STOPPED}:
            raise UsageError(f"the order is {progress.state}; only a failed or stopped one is resumed")
        (folder.path / "stop").unlink(missing_ok=True)
        folder.write_progress(progress.model_copy(update={"state": RunState.QUEUED, "code": ""}))

    def may_read(self, station: str, digest: str) -> bool:
        """Whether a station may fetch these weights: it is named by an order that uses them."""
        for folder in self.folders():
            accepted = folder.read_order()
            if station in accepted.order.stations and digest in weights_of(folder, accepted):
                return True
        return False

    def _existing(self, order_digest: str) -> RunFolder:
        folder = self.folder(order_digest)
        if not (folder.path / "order.json").exists():
            raise NotFoundError("there is no such order here")
        return folder


def weights_of(folder: RunFolder, accepted: AcceptedOrder) -> frozenset[str]:
    """Digests of the weights that an order's stations may fetch: the initial ones and those of its last rounds."""
    digests = {accepted.order.initial_weights.digest} if accepted.order.initial_weights else set()
    checkpoint = folder.read_json("checkpoint.json") or {}
    for key in ("weights", "previous_weights"):
        blob = checkpoint.get(key)
        if isinstance(blob, dict) and isinstance(blob.get("digest"), str):
            digests.add(blob["digest"])
    return frozenset(digests)


_Model = TypeVar("_Model", bound=StrictModel)


def _read(model: type[_Model], path: Path) -> _Model:
    try:
        data = path.read_bytes()
        parse_json(data, what=path.name, max_bytes=_MAX_FILE_BYTES)
        return model.model_validate_json(data)
    except FileNotFoundError:
        raise StateError(f"{path.name} is missing") from None
    except (OSError, DocumentError, ValidationError) as error:
        raise StateError(f"{path.name} is damaged ({type(error).__name__})") from None
