"""The researcher's road, typed on `pht-train`: build, dry run, pack, submit, order, watch, fetch."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.consortium import Consortium
from tests.e2e.programs import BIN, ProgramError, environment, run, run_json

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Train:
    """A train's source folder and its packed bundle."""

    source: Path
    bundle: Path

    @property
    def index(self) -> dict[str, Any]:
        return dict(json.loads((self.bundle / "bundle.json").read_bytes()))


@dataclass(slots=True)
class Researcher:
    """Has a key, a token, and a folder of their own."""

    consortium: Consortium

    @property
    def folder(self) -> Path:
        return self.consortium.researcher

    @property
    def key(self) -> Path:
        return self.folder / "researcher.pem"

    @property
    def registry(self) -> tuple[object, ...]:
        c = self.consortium
        return ("--to", c.url, "--token-file", c.token("researcher"), "--ca", c.ca)

    def settle(self) -> str:
        """Make the requester's key; returns its public part."""
        self.folder.mkdir(exist_ok=True)
        run("pht-train", "key", "new", self.key, "--no-passphrase")
        return self.key.with_suffix(".pub").read_text().strip()

    def build(self, source: Path) -> Train:
        """Build and pack a train; one without a program has nothing to build."""
        train = Train(source, self.folder / source.name)
        if (source / "Dockerfile").is_file():
            run("pht-train", "build", source, timeout_s=1800)
        run("pht-train", "pack", source, train.bundle)
        return train

    def check(self, train: Train) -> dict[str, Any]:
        """The dry run: the real sandbox and the real guard on synthetic images."""
        return dict(run_json("pht-train", "check", train.bundle, timeout_s=900))

    def submit(self, train: Train) -> dict[str, Any]:
        return dict(run_json("pht-train", "submit", train.bundle, *self.registry))

    def initial_weights(self, train: Train) -> Path:
        out = self.folder / f"{train.source.name}-initial.safetensors"
        run("pht-train", "init-weights", train.bundle, out)
        return out

    def order(
        self,
        train: Train,
        policy: Path,
        name: str,
        *,
        rounds: int = 1,
        weights: Path | None = None,
        settings: Mapping[str, object] | None = None,
        stations: Sequence[str] = (),
        minimum: int | None = None,
        strategy: str | None = None,
        unchecked: bool = False,
    ) -> Path:
        """Make and sign a run order."""
        out = self.folder / f"{name}.order.json"
        out.unlink(missing_ok=True)
        named = list(stations) or [hospital.name for hospital in self.consortium.hospitals]
        extra: list[object] = ["--weights", weights] if weights else []
        for key, value in (settings or {}).items():
            extra += ["--set", f"{key}={value}"]
        if minimum is not None:
            extra += ["--minimum-stations", minimum]
        if strategy is not None:
            extra += ["--strategy", strategy]
        if unchecked:
            extra.append("--unchecked")
        run(
            "pht-train", "order", "new", "--policy", policy, "--bundle", train.bundle, "--stations", ",".join(named),
            "--rounds", rounds, "--key", self.key, *extra, out,
        )  # fmt: skip
        return out

    def send(self, order: Path, weights: Path | None = None) -> str:
        """Send an order; returns its digest."""
        extra = ("--weights", weights) if weights else ()
        sent = run_json("pht-train", "order", "send", order, *extra, *self.registry)
        return str(sent["digest"])

    def watch(self, digest: str, *, expect: int | None = 0) -> int:
        """Show a run's progress until it is over, on this process's own terminal; returns the exit code."""
        command = [str(BIN / "pht-train"), "watch", digest, *map(str, self.registry)]
        # Its progress goes to our terminal as it comes; why it ended is kept, to be said again where it is not expected.
        done = subprocess.run(
            command, env=environment(), check=False, timeout=1800, stderr=subprocess.PIPE, text=True
        )
        sys.stderr.write(done.stderr)
        if expect is not None and done.returncode != expect:
            raise ProgramError(command, done.returncode, "", done.stderr)
        return done.returncode

    def results(self, digest: str, out: Path) -> Path:
        run("pht-train", "results", digest, out, *self.registry)
        return out
