"""Simulated stations, many in one process: the real agent's loop, Fleet connection and blob client, a core without a container.

    python -m tests.bench.scale_stations     one JSON document on stdin (`Plan`), then a command per line

Commands: ``stats`` answers one JSON line (`Counted` by station), ``end`` (or the end of stdin) stops. The core brings the
weights of each round to a file, answers with a sparse file of its own, and says how long each transfer took.
"""

import json
import logging
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import httpcore
import httpx

from policies.documents import digest_of
from policies.wire.http import load_private_key
from policies.wire.instructions import (
    MAX_INLINE_ARRAYS_BYTES,
    Instruction,
    Kind,
    StationReply,
    Status,
)
from station.agent import Agent, BlobClient, FleetConnection, Pace, blob_of

NUM_EXAMPLES = 50


@dataclass
class Counted:
    """What one station moved, over HTTP: bodies and heads, without TLS.

    Attributes:
        requests: by the last part of the path.
        fetch_s: of each set of weights that moved.
        push_s: of each release.
    """

    received: int = 0
    sent: int = 0
    connections: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    fetch_s: list[float] = field(default_factory=list)
    push_s: list[float] = field(default_factory=list)
    rounds: int = 0


class ScaleStation:
    """An `InstructionHandler` whose training is nothing: each release says its station and round in one number."""

    def __init__(self, number: int, blobs: BlobClient, folder: Path, counted: Counted) -> None:
        self._number, self._blobs, self._folder, self._counted = number, blobs, folder, counted
        self._recorded: dict[tuple[str, Kind, int], tuple[StationReply, bytes | None]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        """Answer; asked twice, say the same."""
        key = (instruction.order_digest, instruction.kind, instruction.round)
        if key not in self._recorded:
            self._recorded[key] = self._answer(instruction, arrays)
        reply, out = self._recorded[key]
        return reply.model_copy(update={"attempt": instruction.attempt}), out

    def fault(self, instruction: Instruction) -> StationReply:
        """Say that it failed: asked again, it goes on with its transfer."""
        return _reply(instruction, Status.FAILED, code="STATION_FAULT")

    def run_over(self, order_digest: str) -> None:
        """Forget what was answered."""
        for key in [key for key in self._recorded if key[0] == order_digest]:
            del self._recorded[key]

    def _answer(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        if instruction.kind is Kind.PREPARE:
            return _reply(instruction, Status.ACCEPTED), None
        if instruction.kind is Kind.FINISH:
            return _reply(instruction, Status.FINISHED), None
        inbound = self._inbound(instruction, arrays)
        if instruction.kind is Kind.EVALUATE:
            self._counted.rounds += 1
            return _reply(instruction, Status.RELEASED, metrics={"auc": 0.5}), None
        release = self._release(inbound, instruction.round)
        blob, out = blob_of(release), None
        if blob.size > MAX_INLINE_ARRAYS_BYTES:
            begun = time.monotonic()
            self._blobs.push(blob, release, instruction.order_digest)
            self._counted.push_s.append(time.monotonic() - begun)
        else:
            out = release.read_bytes()
        return _reply(instruction, Status.RELEASED, metrics={"loss": 1.0}, release=blob), out

    def _inbound(self, instruction: Instruction, arrays: bytes | None) -> Path:
        weights = instruction.weights
        path = self._folder / (weights.digest[7:23] if weights else "none")
        if arrays is not None:
            path.write_bytes(arrays)
        elif weights is not None and not path.exists():
            # One model per station is all that a bench of many has room for.
            self._clear(path)
            begun = time.monotonic()
            self._blobs.fetch(weights, path)
            self._counted.fetch_s.append(time.monotonic() - begun)
        self._clear(path)
        return path

    def _clear(self, path: Path) -> None:
        for other in self._folder.iterdir():
            if other.name not in {path.name, path.name + ".part", "release"}:
                other.unlink()

    def _release(self, inbound: Path, round_: int) -> Path:
        """Deltas of the inbound weights' shape: zeros that take no room on the disk, but for the first number."""
        path = self._folder / "release"
        with inbound.open("rb") as weights, path.open("wb") as file:
            header = weights.read(8)
            header += weights.read(int.from_bytes(header, "little"))
            file.write(header)
            file.write(struct.pack("<f", self._number * 1e-3 + round_ * 1e-6))
            file.truncate(inbound.stat().st_size)
        return path


def _reply(instruction: Instruction, status: Status, **fields: Any) -> StationReply:
    return StationReply(
        order_digest=instruction.order_digest,
        kind=instruction.kind,
        round=instruction.round,
        attempt=instruction.attempt,
        status=status,
        num_examples=NUM_EXAMPLES,
        # Real stations name both heads in each answer: they are most of a line of rounds.jsonl.
        egress_ledger_head=digest_of(f"ledger {instruction.round}".encode()),
        audit_head=digest_of(f"audit {instruction.round}".encode()),
        **fields,
    )


class _CountedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, counted: Counted, *, counts: bool) -> None:
        self._stream, self._counted, self._counts = stream, counted, counts

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, timeout)
        self._counted.received += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._counted.sent += len(buffer)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        return _CountedStream(self._stream.start_tls(*arguments, **named), self._counted, counts=True)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CountedBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend, counted: Counted) -> None:
        self._backend, self._counted = backend, counted

    def connect_tcp(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        self._counted.connections += 1
        return _CountedStream(self._backend.connect_tcp(*arguments, **named), self._counted, counts=False)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def _count(client: httpx.Client, counted: Counted) -> None:
    """Look over the shoulder of a client of the station's."""
    transport: Any = client._transport  # nowhere else can its bytes be seen
    pool = transport._pool
    pool._network_backend = _CountedBackend(pool._network_backend, counted)

    def name(request: httpx.Request) -> None:
        last = request.url.path.rpartition("/")[2]
        what = f"{request.method} blob" if last.startswith("sha256:") else last
        counted.requests[what] = counted.requests.get(what, 0) + 1

    client.event_hooks["request"].append(name)


@dataclass(frozen=True)
class Member:
    """One simulated station.

    Attributes:
        url: the orchestrator's address, or that of a link in between.
        entering: what starts its process in a network of its own, before the command.
    """

    name: str
    number: int
    url: str
    key: str
    entering: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What one process runs."""

    ca: str
    folder: str
    members: Sequence[Member]
    pace: Mapping[str, float]


def start_member(member: Member, ca: Path, folder: Path, pace: Pace) -> tuple[Agent, BlobClient, Counted]:
    """Start one simulated station in this process."""
    counted, key = Counted(), Path(member.key)
    connection = FleetConnection(member.url, ca, key)
    blobs = BlobClient(member.url, ca, load_private_key(key))
    _count(connection._client._client, counted)
    _count(blobs._client, counted)
    handler = ScaleStation(member.number, blobs, folder / "core", counted)
    agent = Agent(connection, handler, folder / "agent", pace)
    agent.start()
    return agent, blobs, counted


def main() -> int:
    """Run until told to end."""
    logging.disable(logging.CRITICAL)
    given = json.loads(sys.stdin.readline())
    pace = Pace(**given["pace"])
    running: dict[str, tuple[Agent, BlobClient, Counted]] = {}
    for each in given["members"]:
        member = Member(**each)
        folder = Path(given["folder"]) / member.name
        running[member.name] = start_member(member, Path(given["ca"]), folder, pace)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        sys.stdout.write(json.dumps({name: asdict(parts[2]) for name, parts in running.items()}) + "\n")
        sys.stdout.flush()
    for _, blobs, _ in running.values():
        blobs.close()
    stopping = [threading.Thread(target=agent.stop, args=(5.0,)) for agent, _, _ in running.values()]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()
    return 0


class Stations:
    """Simulated stations in processes of their own; a context that ends them and takes their models away."""

    def __init__(
        self,
        members: Sequence[Member],
        ca: Path,
        folder: Path,
        pace: Pace | None = None,
        each: int = 25,
    ) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        groups: dict[tuple[str, ...], list[Member]] = {}
        for member in members:
            groups.setdefault(tuple(member.entering), []).append(member)
        self._plans = [
            Plan(str(ca), str(folder), group[start : start + each], asdict(pace or Pace()))
            for group in groups.values()
            for start in range(0, len(group), each)
        ]

    def __enter__(self) -> Self:
        """Start them."""
        for plan in self._plans:
            process = subprocess.Popen(
                [*plan.members[0].entering, sys.executable, "-m", "tests.bench.scale_stations"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._processes.append(process)
            _tell(process, json.dumps(asdict(plan)))
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        for process in self._processes:
            with suppress(BrokenPipeError):
                _tell(process, "end")
        for process in self._processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
        # The agents' own folders stay: who comes back knows its node id, and need not be taken for offline first.
        for core in self._folder.glob("*/core"):
            shutil.rmtree(core, ignore_errors=True)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    def counted(self) -> dict[str, dict[str, Any]]:
        """What each station moved until now."""
        found: dict[str, dict[str, Any]] = {}
        for process in self._processes:
            _tell(process, "stats")
        for process in self._processes:
            if process.stdout is None or not (line := process.stdout.readline()):
                raise RuntimeError("a process of simulated stations ended")
            found |= json.loads(line)
        return found


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    if process.stdin is None:
        raise RuntimeError("a process without its standard input")
    process.stdin.write(line + "\n")
    process.stdin.flush()


def total(counted: Mapping[str, Mapping[str, Any]], field_: str, names: Iterable[str] | None = None) -> int:
    """The sum of a number over stations."""
    return sum(int(counted[name][field_]) for name in (counted if names is None else names))


if __name__ == "__main__":
    raise SystemExit(main())
