"""Noisy releases for tests: a policy with noise, a ledger around a real guard; also run as a program that is killed half-way."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egress_documents import COUNTS, ORDER, Bench, head, manifest, policy
from egress_station import Records, reply_of

from policies.manifest import TrainManifest
from policies.policy import Policy
from policies.privacy import Spent, cost_of, epsilon
from policies.refusals import Refused
from policies.rules.privacy_rules import granted
from station.egress.guard import Guard
from station.egress.privacy.drawing import Charge
from station.egress.privacy.ledger import PrivacyCharge, PrivacyLedger
from station.egress.records.releases import Recorded
from station.egress.release import Release, Withheld

MULTIPLIER = 50.0
DELTA = 1e-6
EVERYBODY = frozenset(f"p{number}" for number in range(90))
PLENTY = 1 << 59


def grant(queries: int) -> float:
    """The epsilon that so many queries use up, to the last one."""
    return epsilon(Spent.of(MULTIPLIER, queries), DELTA)


def noise(queries: int) -> dict[str, float]:
    """What a policy says that grants each patient so many queries."""
    return {"noise_multiplier": MULTIPLIER, "epsilon": grant(queries), "delta": DELTA}


def noisy(queries: int) -> dict[str, object]:
    """The station kit's policy with noise: a round of it is three queries, an update and two metrics."""
    return {
        "release.differential_privacy": noise(queries),
        "release.tensors.clipping_norm": 1.0,
        "release.tensors.float_buffers": "withhold",
        # A station waits for it: short, so that tests do not.
        "release.timing_quantum_s": 0.01,
        "runs.rounds": 2,
    }


def noisy_policy(kind: str = "training", queries: int = 60, **release: Any) -> Policy:
    """`egress_documents.policy` with noise; its twenty rounds have room for what it costs."""
    rules: dict[str, Any] = {"differential_privacy": noise(queries), "timing_quantum_s": 60.0}
    if kind == "training":
        rules["tensors"] = {"clipping_norm": 1.0, "float_buffers": "withhold"}
    return policy(kind, **{**rules, **release})


class Books:
    """A station's records with a ledger of privacy and a guard that charges it, in one folder."""

    def __init__(self, folder: Path, rules: Policy | None = None, train: TrainManifest | None = None) -> None:
        self.folder = folder
        self.records = Records.open(folder)
        self.ledger = PrivacyLedger(self.records.database, self.records.audit, lambda: PLENTY)
        self.rules, self.train = rules or noisy_policy(), train or manifest()
        self.bench = Bench(folder)

    def charge(self, round_: int = 1, stage: Any = "train", then: Any = None) -> Charge:
        """Charge the ledger; `then` is called when the charge is durable."""
        privacy = self.rules.release.differential_privacy
        assert privacy is not None

        def charged(queries: tuple[Any, ...]) -> Refused | None:
            names, cost = tuple(map(str, queries)), cost_of(privacy, queries).units
            refused = self.ledger.charge(
                PrivacyCharge(
                    ORDER, round_, stage, self.rules.id, 1, names, cost, granted(privacy).units, EVERYBODY
                )
            )
            if refused is None and then is not None:
                then()
            return refused

        return charged

    def answer(
        self, round_: int = 1, answer_head: Mapping[str, Any] | None = None, then: Any = None
    ) -> Release | Withheld:
        """What the guard makes of a training reply."""
        guard = Guard(
            self.bench.contract(self.train, self.rules), COUNTS, None, self.charge(round_, then=then)
        )
        return guard.check(
            self.bench.request(round_=round_), dict(answer_head or head()), self.bench.answer()
        )

    def record(self, release: Release, **options: Any) -> Recorded:
        recorded = self.records.record(release, **options)
        assert isinstance(recorded, Recorded), recorded
        return recorded

    def close(self) -> None:
        self.records.database.close()


def die(*_anything: Any) -> None:
    """What the power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Make one noisy release and die: once it is charged, drawn, about to be committed (`reply`), or recorded (`done`)."""
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    books = Books(folder)
    release = books.answer(then=die if moment == "charged" else None)
    assert isinstance(release, Release), release
    if moment == "drawn":
        die()
    if moment == "reply":
        books.record(release, make=die)
    books.record(release, make=reply_of(release))
    die()


if __name__ == "__main__":
    main()
