"""Accepted orders and how far they are: a folder per order, read by the portal, written by the run worker.

    runs/<order hex>/order.json        the accepted order, never changed
                     accepted.json     the same, before its acceptance is durable: not taken up (`accepting`)
                     state.json        state, round, Flower run, message; replaced as a whole
                     rounds.jsonl      one line per finished round
                     checkpoint.json   where to go on: round, weights, what the round has so far
                     reviews.json      since when a person looks at which station
                     task.json         the claimed Flower task with its token; mode 0600
                     history.jsonl     each change of state with its moment (`history`)
                     stop              present when an operator asked to stop
                     alive             touched every second by the process that carries it
                     replies/          bytes of arrays while a round is aggregated

States: queued -> running -> finished | failed | stopped; failed and stopped -> queued by `resume`.
Every file is written under another name, synced and renamed.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from orchestrator.federation.accepting import ACCEPTED, ORDER, prepare, publish
from orchestrator.federation.history import note_change
from orchestrator.federation.moments import is_old, stamp, touched
from orchestrator.federation.places import UNLIMITED, Limits, Place, Running, Waiting, choose
from orchestrator.federation.round_log import RoundLog
from orchestrator.federation.run_documents import AcceptedOrder, RunProgress, RunState, Timing
from policies.documents import StrictModel, parse_json
from policies.errors import DocumentError, NotFoundError, PhtError, StateError, UsageError
from policies.files import write_atomically

log = logging.getLogger(__name__)

__all__ = ["AcceptedOrder", "FolderQueue", "RunFolder", "RunProgress", "RunState", "Timing", "weights_of"]

_KEPT: Final = ".kept"
_PLACES: Final = ".places.json"

ALIVE: Final = "alive"
"""A run folder's file that is touched every second while a process carries the order."""

SUPERLINK_DOWN: Final = "SUPERLINK_DOWN"
"""The SuperLink does not answer: waited for."""
WORKER_AWAY: Final = "WORKER_AWAY"
"""Nobody keeps the queue: the worker is being started again."""
SERVERAPP_STARTING: Final = "SERVERAPP_STARTING"
"""The process that carries the order is starting, or is being started again."""
ORDER_EXPIRED: Final = "ORDER_EXPIRED"

WaitsForPeople = Callable[[AcceptedOrder, RunProgress, datetime], bool]
"""Whether a run only waits for people (`people`)."""

_MAX_FILE_BYTES = 8 * 1024 * 1024


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
        if not (self.path / ORDER).exists() and (self.path / ACCEPTED).exists():
            # Published this very moment, it is there under its name.
            with suppress(StateError):
                return _read(AcceptedOrder, self.path / ACCEPTED)
        return _read(AcceptedOrder, self.path / ORDER)

    def read_progress(self) -> RunProgress:
        """Read how far the order is; queued where nothing is written yet."""
        if not (self.path / "state.json").exists():
            return RunProgress()
        return _read(RunProgress, self.path / "state.json")

    def write_progress(self, progress: RunProgress) -> None:
        """Replace how far the order is; another state than before goes into its history first."""
        if self._state() != progress.state:
            note_change(self.path, progress.state, progress.round, progress.code)
            progress = progress.model_copy(update={"since": datetime.now(UTC).replace(microsecond=0)})
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

    def beat(self) -> None:
        """Say that a process carries the order now; lost at a crash of the machine, like that process."""
        (self.path / ALIVE).touch()

    def beaten_at(self) -> int:
        """When that was said last: a number that changes with each time; 0 where it never was."""
        try:
            return (self.path / ALIVE).stat().st_mtime_ns
        except OSError:
            return 0

    def stop_wanted(self) -> bool:
        """Whether an operator asked to stop."""
        return (self.path / "stop").exists()


@dataclass(slots=True)
class FolderQueue:
    """A folder of run folders. The portal submits and reads; one worker takes and reports."""

    runs: Path
    _in_hand: set[str] = field(default_factory=set)
    _served: dict[str, int] = field(default_factory=dict)
    _known: dict[str, tuple[object, AcceptedOrder | None, RunProgress]] = field(default_factory=dict)
    _damaged: set[str] = field(default_factory=set)
    _places: dict[str, list[object]] = field(default_factory=dict)

    def submit(self, accepted: AcceptedOrder) -> RunFolder:
        """Put an accepted order in the queue. The same order twice is one order.

        Raises:
            UsageError: it names a station without a node id.
        """
        folder = self.prepare(accepted)
        publish(folder.path)
        return folder

    def prepare(self, accepted: AcceptedOrder) -> RunFolder:
        """Have an accepted order durable in its folder; nobody takes it up before `publish`.

        Raises:
            UsageError: it names a station without a node id.
        """
        without = [name for name in accepted.order.stations if name not in accepted.nodes]
        if without:
            raise UsageError(f"no node id for {', '.join(without)}", hint="Register the station first.")
        folder = self.folder(accepted.order_digest)
        if not (folder.path / ORDER).exists():
            folder.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            folder.write_progress(RunProgress(rounds=accepted.order.rounds))
            prepare(folder.path, accepted.model_dump_json(indent=1).encode())
        return folder

    def folder(self, order_digest: str) -> RunFolder:
        """The folder of an order, there or not."""
        return RunFolder(self.runs / order_digest.removeprefix("sha256:"))

    def folders(self) -> Iterator[RunFolder]:
        """All orders, oldest first."""
        if not self.runs.is_dir():
            return
        found = []
        for path in self.runs.iterdir():
            try:
                found.append(((path / "order.json").stat().st_mtime_ns, path))
            except OSError:
                continue
        for _, path in sorted(found):
            yield RunFolder(path)

    def next_order(
        self, limits: Limits = UNLIMITED, waits: WaitsForPeople = lambda *_: False
    ) -> AcceptedOrder | None:
        """Take an order that waits or was left running; not one that this worker has in hand.

        Fair among requesters, and no station has more runs at once than the limits say (`places`). What is to be stopped or has
        expired ends here; a folder that is damaged stops nobody else's order.
        """
        waiting: dict[str, tuple[AcceptedOrder, Waiting]] = {}
        running: list[Running] = []
        now = datetime.now(UTC)
        for folder in self.folders():
            if (found := self._look_at(folder)) is None:
                continue
            accepted, progress = found
            digest = accepted.order_digest
            stations = tuple(name for name in accepted.order.stations if name not in progress.excluded)
            if digest in self._in_hand:
                running.append(Running(accepted.requester, stations, waits(accepted, progress, now)))
            elif not self._ends_here(folder, accepted, progress):
                resumed = progress.state is RunState.RUNNING
                for_people = waits(accepted, progress, now)
                waiting[digest] = (
                    accepted,
                    Waiting(digest, accepted.requester, stations, resumed, for_people),
                )
        chosen, places = choose([item for _, item in waiting.values()], running, self._served, limits)
        self._write_places(places)
        if chosen is None:
            return None
        self._in_hand.add(chosen)
        self._served[waiting[chosen][1].requester] = max(self._served.values(), default=0) + 1
        return waiting[chosen][0]

    def report(self, order_digest: str, progress: RunProgress) -> None:
        """Say how far an order is. One that is over stays in hand until who carries it lets go of it."""
        self.folder(order_digest).write_progress(progress)

    def let_go(self, order_digest: str) -> None:
        """Have an order no longer in hand; only who carries it says so, and once, as the last thing."""
        self._in_hand.discard(order_digest)

    def beat(self) -> None:
        """Say that a worker keeps the queue now."""
        self.runs.mkdir(mode=0o750, parents=True, exist_ok=True)
        (self.runs / _KEPT).touch()

    def shown(self, order_digest: str, now: datetime | None = None) -> RunProgress:
        """Return how far an order is, as true as it is now: what its folder says may be the word of a process that is gone.

        Raises:
            StateError: damaged.
        """
        folder, moment = self.folder(order_digest), now or datetime.now(UTC)
        progress = folder.read_progress()
        if progress.state.is_over:
            return progress
        kept = touched(self.runs / _KEPT)
        changes: dict[str, object] = {"carried": kept}
        if progress.state is RunState.QUEUED:
            changes |= self._place_of(order_digest)
        else:
            changes["carried"] = touched(folder.path / ALIVE)
        if is_old(kept, moment):
            changes |= {"waiting": WORKER_AWAY}
        elif progress.state is RunState.RUNNING and is_old(changes["carried"], moment):
            changes |= {"waiting": progress.waiting or SERVERAPP_STARTING}
        return progress.model_copy(update=changes)

    def _look_at(self, folder: RunFolder) -> tuple[AcceptedOrder, RunProgress] | None:
        """What the queue knows of an order that is not over. Each file is read once for each time that it is written."""
        try:
            written = stamp(folder.path / "state.json")
            known = self._known.get(folder.path.name)
            if known is None or known[0] != written:
                progress = folder.read_progress()
                accepted = None if progress.state.is_over else folder.read_order()
                self._known[folder.path.name] = known = (written, accepted, progress)
        except StateError as error:
            if folder.path.name not in self._damaged:
                self._damaged.add(folder.path.name)
                log.error("order_damaged", extra={"order": folder.path.name, "reason": error.message})  # noqa: TRY400
            return self._healed(folder)
        _, accepted, progress = known
        return None if accepted is None else (accepted, progress)

    def _healed(self, folder: RunFolder) -> tuple[AcceptedOrder, RunProgress] | None:
        """Write the state of an order anew that nobody carries, where that alone is damaged: it goes on from its checkpoint."""
        if folder.order_digest in self._in_hand:
            return None
        try:
            accepted = folder.read_order()
            folder.write_progress(RunProgress(rounds=accepted.order.rounds))
            return accepted, folder.read_progress()
        except PhtError:
            return None

    def _ends_here(self, folder: RunFolder, accepted: AcceptedOrder, progress: RunProgress) -> bool:
        if folder.stop_wanted():
            self.report(
                accepted.order_digest, progress.model_copy(update={"state": RunState.STOPPED, "stage": ""})
            )
            return True
        if datetime.now(UTC) >= accepted.order.expires:
            ended = {"state": RunState.FAILED, "code": ORDER_EXPIRED, "stage": ""}
            self.report(accepted.order_digest, progress.model_copy(update=ended))
            return True
        return False

    def _write_places(self, places: dict[str, Place]) -> None:
        value = {
            digest: [place.position, place.waiting, list(place.full)] for digest, place in places.items()
        }
        if value != self._places:
            write_atomically(self.runs / _PLACES, json.dumps(value, sort_keys=True).encode())
            self._places = value

    def _place_of(self, order_digest: str) -> dict[str, object]:
        try:
            position, waiting, full = json.loads((self.runs / _PLACES).read_bytes())[order_digest]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {"position": int(position), "waiting": str(waiting), "full": tuple(map(str, full))}

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
            try:
                accepted = folder.read_order()
            except StateError:
                continue
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
