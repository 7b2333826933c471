"""A train without a program: no image, no container; the station's own code counts what it knows of its patients.

To whoever gives messages it looks like a warm container that answers at once. The manifest says what is counted; nothing that
arrived over the network is run.
"""

import threading
import time
from typing import Final

from policies.manifest import TrainManifest
from station.cohorts.roster import Roster
from station.egress.analyses.tally import Tally
from station.sandbox.mapping import MapReply
from station.sandbox.spec import ExitClass, ReplyLimits, TrainFailure, TrainRequest


class StationSession:
    """A prepared train without a program; the surface of `TrainSession`.

    Args:
        run_id: of the run.
        manifest: the train's: every column of its rows is clinical.
        roster: whom it counts, and what the cohort's table shows of them.
    """

    has_gpu: Final = False

    def __init__(self, run_id: str, manifest: TrainManifest, roster: Roster) -> None:
        self._run_id: Final = run_id
        self._manifest: Final = manifest
        self._roster: Final = roster
        self._stopped: Final = threading.Event()

    @property
    def run_id(self) -> str:
        """The run it serves."""
        return self._run_id

    @property
    def alive(self) -> bool:
        """Whether it can take another message."""
        return not self._stopped.is_set()

    def exchange(
        self, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> MapReply | TrainFailure:
        """Count the cohort's patients.

        Args:
            request: what is asked; there is nothing to configure.
            limits: where another train's arrays would go.
            timeout_s: for the answer; counting takes less than a second per hundred thousand patients.
        """
        if self._stopped.is_set():
            return TrainFailure(ExitClass.CRASH, detail="the station ended it")
        began = time.monotonic()
        tally = Tally(self._manifest, self._roster)
        tally.fill()
        if self._stopped.is_set():
            # Ended meanwhile, such as by a withdrawal: nothing of what was counted is used.
            return TrainFailure(ExitClass.CRASH, detail="the station ended it")
        return MapReply(tally, time.monotonic() - began)

    def logs(self, max_bytes: int = 0) -> str:
        """Return nothing: no program ran that could have printed."""
        return ""

    def finish(self) -> None:
        """End it."""
        self.stop()

    def stop(self) -> None:
        """End it, also while it counts."""
        self._stopped.set()
