"""Our rounds doing nothing: the four programs, warm sandboxed trains, the guard, the ledger, everything on.

The same trivial work as `round_stock`: the weights come back as they went out. What is measured is the orchestrator's own
`wall_s` of each round: train, aggregate and evaluate at every station.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.e2e.consortium import BOARD, Consortium
from tests.e2e.programs import run, stopping
from tests.e2e.researcher import Researcher, Train

NOTHING = Path(__file__).parent / "nothing"

_ANSWERS = {
    "data.collections": "[thorax-cxr]",
    "data.minimum_patients": 5,
    "runs.runs": 20,
    "runs.rounds": 20,
    "runs.releases": 500,
    "release.minimum_patients_per_metric": 5,
    # What a round costs, without waiting for a moment.
    "release.timing_quantum_s": 0.0,
    "release.maximum_bytes": 500_000_000,
}


class OurConsortium:
    """A consortium that is set up once; `rounds` then runs one order of any size in it."""

    def __init__(self, root: Path, stations: int) -> None:
        self._root = root
        self._stations = stations
        self._consortium = Consortium(root / "consortium")
        self._consortium.root.mkdir(parents=True)
        self._researcher = Researcher(self._consortium)
        self.stopping = stopping(self._consortium.servers)

    def found(self) -> None:
        """Board, orchestrator, hospitals with radiographs, and the train, approved."""
        c, data = self._consortium, self._root / "radiographs"
        run("pht-train", "phantoms", data, "--hospitals", self._stations, "--patients", 40)
        c.found_board()
        c.start_orchestrator()
        c.publish()
        c.start_witness()
        for folder in sorted(data.iterdir()):
            c.add_hospital(folder.name, folder)
        c.register_hospitals()
        with ThreadPoolExecutor(self._stations) as pool:
            list(pool.map(c.start_station, c.hospitals))
        for hospital in c.hospitals:
            c.take_in(hospital)
        self._researcher.settle()
        self._train = self._researcher.build(NOTHING)
        self._researcher.submit(self._train)
        self._policy = self._govern(self._train)

    def rounds(self, size_bytes: int, rounds: int, timeout_s: float = 400.0) -> list[float]:
        """Seconds of each round after the first."""
        weights = self._root / f"weights-{size_bytes}.safetensors"
        save_file({"w": np.zeros(size_bytes // 4, dtype=np.float32)}, weights)
        name = f"nothing-{size_bytes}"
        order = self._researcher.order(
            self._train, self._policy, name, rounds=rounds, weights=weights, unchecked=True
        )
        digest = self._researcher.send(order, weights)
        folder = self._consortium.orchestrator / "runs" / digest.removeprefix("sha256:")
        deadline = time.monotonic() + timeout_s
        while (state := json.loads((folder / "state.json").read_text()))["state"] not in {
            "finished",
            "failed",
        }:
            if time.monotonic() > deadline:
                raise TimeoutError(f"our rounds did not finish in {timeout_s} s: {state}")
            time.sleep(0.2)
        if state["state"] == "failed":
            raise RuntimeError(f"our rounds failed: {state}")
        lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        if any(len(line["took_part"]) != self._stations for line in lines):
            raise RuntimeError(f"a station did not take part: {lines}")
        return [float(line["wall_s"]) for line in lines[1:]]

    def _govern(self, train: Train) -> Path:
        c = self._consortium
        policy = c.board / "nothing.yaml"
        settings: list[object] = []
        for key, value in _ANSWERS.items():
            settings += ["--set", f"{key}={value}"]
        run(
            "pht-board", "draft", "--from", train.bundle, "--out", policy, "--requester-key",
            self._researcher.key.with_suffix(".pub"), "--board", BOARD, *settings,
        )  # fmt: skip
        policy.write_text(policy.read_text().replace("FILL IN", "For a benchmark"))
        c.sign(policy, ("clinician", "patient"), "--train", train.bundle)
        c.publish(policy)
        return policy
