"""An orchestrator as its operator starts it, with a board, a policy and a register of many stations: real keys, real signatures.

`ScaleConsortium.run` gives one signed order and watches it: seconds per round by the orchestrator's own clock, memory and
processor seconds of its processes from outside.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save_file

from orchestrator.initialise import initialise
from orchestrator.registry.access import Role
from orchestrator.results.folder import wants_result
from orchestrator.services import open_services
from orchestrator.settings import Home, parse_settings
from policies.documents import Digest, digest_of_file
from policies.signing import generate_key, load_signer
from policies.wire.registry_client import RegistryClient
from tests.bench.scale_processes import Watch
from tests.bench.scale_stations import Member
from tests.e2e.programs import Server, run
from tests.orchestrator_site import Board, policy_yaml, send_bundle, signed_order, write_key

MINIMUM_STATIONS = 3
_OVER = frozenset({"finished", "failed", "stopped"})
_ENOUGH_ROUNDS = 2
"""The first one warms everything up and is left out."""


@dataclass(frozen=True, slots=True)
class RoundCost:
    """What one round took: by the orchestrator's own clock, and between two lines of its log of rounds."""

    wall_s: float
    aggregate_s: float
    took_part: int
    begin: float
    end: float
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunCost:
    """What one order took."""

    digest: str
    rounds: Sequence[RoundCost]
    watch: Watch

    def wall_s(self) -> float:
        """The median round; the first, which warms everything up, is left out."""
        return statistics.median(each.wall_s for each in self._later())

    def cpu_s(self, part: str) -> float:
        """Processor seconds per round of one part."""
        later = self._later()
        return self.watch.cpu_s(part, later[0].begin, later[-1].end) / len(later)

    def peak_mb(self, part: str, round_: int | None = None) -> float:
        """The most memory of a part; of one round, counted from 1, where that is given."""
        if round_ is None:
            return self.watch.peak_mb(part, self.rounds[0].begin, self.rounds[-1].end)
        found = self.rounds[round_ - 1]
        return self.watch.peak_mb(part, found.begin, found.end)

    def _later(self) -> Sequence[RoundCost]:
        return self.rounds[1:] or self.rounds


class ScaleConsortium:
    """A context: `serve` runs within it, with so many stations in the board's register."""

    def __init__(
        self,
        folder: Path,
        stations: int,
        port: int,
        timing: Mapping[str, float] | None = None,
        hosts: Sequence[str] = ("localhost",),
    ) -> None:
        self._folder, self._port, self._hosts = folder, port, list(hosts)
        self.names = [f"hospital-{number:03d}" for number in range(stations)]
        self._timing = dict(timing or {})
        self._stack = ExitStack()
        self.home = Home(folder / "orchestrator")

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://localhost:{self._port}"

    @property
    def supervisor(self) -> int:
        """The process of `pht-orchestrator serve`."""
        if self._server.process is None:
            raise RuntimeError("it does not run")
        return self._server.process.pid

    def __enter__(self) -> Self:
        """Found everything and serve."""
        try:
            self._found()
        except BaseException:
            # Nobody else ends what was started by then.
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stack.close()

    def members(
        self,
        count: int,
        urls: Mapping[int, str] | None = None,
        entering: Mapping[int, Sequence[str]] | None = None,
    ) -> list[Member]:
        """The first stations of the register, some behind links and in networks of their own."""
        return [
            Member(
                name,
                number + 1,
                (urls or {}).get(number, self.url),
                str(self._folder / f"{name}.key"),
                (entering or {}).get(number, ()),
            )
            for number, name in enumerate(self.names[:count])
        ]

    def run(
        self,
        stations: int,
        size_bytes: int,
        rounds: int,
        stages: Sequence[str] = ("train", "evaluate"),
        timeout_s: float = 1800.0,
        on_round: Callable[[int, float], None] | None = None,
    ) -> RunCost:
        """Give one order to the first stations and see it through.

        Args:
            stations: how many.
            size_bytes: of the model.
            rounds: how many.
            stages: of each round.
            timeout_s: for all of it; what is done of two rounds or more by then counts, and the order is stopped.
            on_round: told the number of each round that is over, and the seconds since the order.

        Raises:
            RuntimeError: it failed.
            TimeoutError: it took too long for two rounds.
        """
        initial = self._folder / f"weights-{size_bytes}.safetensors"
        save_file({"w": np.zeros(max(1, size_bytes // 4), dtype=np.float32)}, initial)
        self._client.put_blob(initial)
        envelope = signed_order(
            self._requester,
            self._policy,
            b"",
            initial_weights={"digest": digest_of_file(initial), "size": initial.stat().st_size},
            stations=self.names[:stations],
            rounds=rounds,
            stages=list(stages),
            minimum_stations=min(stations, MINIMUM_STATIONS),
        )
        initial.unlink()
        with Watch(self.supervisor) as watch:
            digest = self._client.post_order(envelope)
            begun = time.monotonic()
            folder = self.home.run_folder(digest)
            ends, over = self._ends(folder, begun, timeout_s, on_round)
        if not over:
            self._client.stop_run(digest)
        self._wait_over(folder)
        lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        return RunCost(digest, [_cost(line, end) for line, end in zip(lines, ends, strict=False)], watch)

    def _ends(
        self, folder: Path, begun: float, timeout_s: float, on_round: Callable[[int, float], None] | None
    ) -> tuple[list[float], bool]:
        """When each round was over, and whether that was all of them."""
        ends: list[float] = []
        pause = threading.Event()
        while True:
            state = json.loads((folder / "state.json").read_text())
            log = folder / "rounds.jsonl"
            done = log.read_bytes().count(b"\n") if log.exists() else 0
            now = time.monotonic()
            if done > len(ends):
                ends += [now] * (done - len(ends))
                if on_round is not None:
                    on_round(done, now - begun)
            if state["state"] in _OVER:
                break
            if now - begun > timeout_s:
                if len(ends) >= _ENOUGH_ROUNDS:
                    return ends, False
                self._client.stop_run(Digest(f"sha256:{folder.name}"))
                raise TimeoutError(
                    f"two rounds were not over within {timeout_s:.0f} s: {state['state']}, round {state['round']}"
                )
            pause.wait(0.05)
        if state["state"] != "finished":
            raise RuntimeError(f"the order failed: {state['code']} {state['missing']}")
        return ends, True

    def _wait_over(self, folder: Path, timeout_s: float = 120.0) -> None:
        """Until the run is over and its result is written: what is measured next has the machine to itself."""
        deadline, pause = time.monotonic() + timeout_s, threading.Event()
        while time.monotonic() < deadline:
            over = json.loads((folder / "state.json").read_text())["state"] in _OVER
            if over and not wants_result(folder):
                return
            pause.wait(0.2)

    def _found(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._board = Board.found(self._folder)
        settings = parse_settings(
            {
                "front": {"hosts": self._hosts, "port": self._port, "bind": "127.0.0.1"},
                "limits": {"free_disk_mib": 512},
                "timing": self._timing,
            }
        )
        self.home = initialise(self._folder / "orchestrator", settings, self._board.root)
        services = open_services(self.home)
        tokens = {role: services.access.new_token(role, role) for role in (Role.BOARD, Role.RESEARCHER)}
        services.close()
        self._server = Server(
            self._folder / "orchestrator.log",
            "pht-orchestrator",
            "serve",
            self.home.path,
            "--json",
            ready="ready",
        )
        self._stack.callback(self._server.stop)
        self._server.start()
        self._publish(tokens[Role.BOARD])
        self._client = RegistryClient(self.url, self.home.ca_certificate, tokens[Role.RESEARCHER])
        self._stack.callback(self._client.close)
        send_bundle(self._client, self._folder)

    def _publish(self, token: str) -> None:
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in self.names}
        for name, key in keys.items():
            write_key(key, self._folder / f"{name}.key")
        generate_key(self._folder / "requester.pem")
        self._requester = load_signer(self._folder / "requester.pem")
        self._board.set_register(keys)
        self._policy = self._board.add_policy(_policy(self._requester.public_hex))
        self._board.publish(f"{self.url}/api/v1/mirror", token, self.home.ca_certificate)
        run("pht-orchestrator", "station", "sync", self.home.path)


def _policy(requester: str) -> bytes:
    document: dict[str, Any] = yaml.safe_load(policy_yaml(requester))
    document["runs"] |= {"rounds": 1000, "releases": 2000}
    # What a round costs, without waiting for a moment.
    document["release"] |= {"timing_quantum_s": 0.0, "maximum_bytes": 1_000_000_000}
    return yaml.safe_dump(document).encode()


def _cost(line: Mapping[str, Any], end: float) -> RoundCost:
    wall_s = float(line["wall_s"])
    return RoundCost(
        wall_s,
        float(line.get("aggregate_s", 0.0)),
        len(line["took_part"]),
        end - wall_s,
        end,
        line["missing"],
    )
