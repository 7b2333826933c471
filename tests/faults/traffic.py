"""Orders, one after the other and sometimes two at once, as long as faults come; and how far each of them is."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.federation.orders import FolderQueue, RunProgress
from policies.errors import PhtError
from tests.e2e.programs import ProgramError
from tests.e2e.researcher import Researcher
from tests.faults.topology import STRATEGIES, Approved, Site

SEND_S = 600.0
TWO_AT_ONCE = 0.35


@dataclass
class Traffic:
    """The researcher's orders.

    Attributes:
        rounds: of each order.
        digests: of the orders that were sent, by name.
        strategies: of each order, by name.
        problems: what went wrong with sending.
    """

    site: Site
    researcher: Researcher
    approved: Approved
    chance: random.Random
    rounds: int
    digests: dict[str, str] = field(default_factory=dict)
    strategies: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep runs going until `enough`."""
        self._thread = threading.Thread(target=self._keep_going, name="traffic", daemon=True)
        self._thread.start()

    def enough(self) -> None:
        """Send no further order."""
        self._enough.set()
        if self._thread is not None:
            self._thread.join(SEND_S + 60)

    def progress(self) -> dict[str, RunProgress]:
        """How far each order is; one whose state is being written is left out."""
        queue, found = FolderQueue(self.site.orchestrator / "runs"), {}
        for name, digest in list(self.digests.items()):
            try:
                found[name] = queue.folder(digest).read_progress()
            except (PhtError, OSError):
                continue
        return found

    def active(self) -> list[str]:
        """Orders that are not over."""
        over = {name for name, progress in self.progress().items() if progress.state.is_over}
        return [name for name in self.digests if name not in over]

    def rounds_done(self) -> int:
        """Rounds finished over all orders."""
        queue = FolderQueue(self.site.orchestrator / "runs")
        return sum(len(queue.folder(digest).read_rounds()) for digest in list(self.digests.values()))

    def told(self) -> str:
        """One line: the orders that are not over, and how the others ended."""
        progress = self.progress()
        going = [
            f"{name} {each.state}{f' {each.round}/{each.rounds} {each.stage}' if each.round else ''}"
            for name, each in progress.items()
            if not each.state.is_over
        ]
        ended = [each.code or str(each.state) for each in progress.values() if each.state.is_over]
        counts = ", ".join(f"{ended.count(how)} {how}" for how in sorted(set(ended)))
        return "; ".join(filter(None, [", ".join(going), counts]))

    def endings(self) -> Iterator[str]:
        """How each order ended, and what was in its way."""
        for name, each in self.progress().items():
            why = f" {each.code} {each.missing}" if each.code else ""
            yield f"{name} ({self.strategies[name]}): {each.state}{why}, round {each.round} of {each.rounds}, {each.flower_runs} Flower runs"

    def _keep_going(self) -> None:
        try:
            while not self._enough.is_set():
                wanted = 2 if self.chance.random() < TWO_AT_ONCE else 1
                while len(self.active()) >= wanted and not self._enough.wait(0.2):
                    pass
                if not self._enough.is_set():
                    self._order()
        except Exception as error:  # noqa: BLE001 - said at the end, where the test fails
            self.problems.append(f"orders could not be sent any more: {type(error).__name__}: {error}")

    def _order(self) -> None:
        name = f"run-{len(self.digests) + 1}"
        self.strategies[name] = STRATEGIES[len(self.digests) % len(STRATEGIES)]
        order = self.researcher.order(
            self.approved.train,
            self.approved.policy,
            name,
            rounds=self.rounds,
            weights=self.approved.weights,
            settings={"pause_s": round(self.chance.uniform(0.1, 0.8), 2)},
            strategy=self.strategies[name],
            unchecked=True,
        )
        deadline = time.monotonic() + SEND_S
        while True:
            try:
                # The same order twice is one order: who does not know whether it arrived sends it again.
                self.digests[name] = self.researcher.send(order, self.approved.weights)
            except ProgramError as error:
                if time.monotonic() > deadline:
                    self.problems.append(f"{name} could not be sent in {SEND_S:.0f} s: {error}")
                    return
                self._enough.wait(1.0)
            else:
                return
