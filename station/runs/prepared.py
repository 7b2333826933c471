"""A run that is ready to take messages: what was made for it, and what holds it."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from policies.refusals import RefusalCode
from policies.wire.arrays import ArrayLayout
from station.admission.gatekeeper import Admitted
from station.catalogue import Standing
from station.cohorts import FrozenCohort
from station.cohorts.roster import Roster
from station.egress.contract import CohortCounts, ReleaseContract
from station.sandbox.mapping import MapSession
from station.sandbox.scoring import ScoringContainer
from station.sandbox.session import TrainSession
from station.sandbox.without_program import StationSession


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The last evaluation, or analysis, of which a release is on record.

    Attributes:
        round: of the run order.
        weights: what was evaluated; None for what takes none.
    """

    round: int
    weights: Path | None


RunSession = TrainSession | MapSession | StationSession


@dataclass(slots=True)
class Prepared:
    """A run that is ready to take messages.

    Attributes:
        roster: its cohort's patients, by the train's names and the project's.
        used: the patients and files that its cohort was frozen from.
        work: the run's folder for weights and replies on their way.
        initial: the initial weights that the order names; None for analyses.
        layout: of `initial`: every round's weights have it.
        session: the warm container; None between a crash and the next message.
        ended_by: why the station itself ended the container (withdrawal, the operator), so that it is not taken for
            the train's failure.
        killed: the session whose end is audited and done; a later one is another.
        has_gpu: whether the container holds a GPU.
        last_message: when the last one was answered, or the container started.
        scoring: the container that scores an update while a message is under way; ended with everything else.
        evaluated: the last evaluation that was released; None before there is one.
        ending: held while its container is ended, so that whoever else ends it finds it gone.
    """

    admitted: Admitted
    cohort: FrozenCohort
    roster: Roster
    used: Standing
    counts: CohortCounts
    work: Path
    initial: Path | None
    layout: ArrayLayout | None
    contract: ReleaseContract
    session: RunSession | None
    ended_by: RefusalCode | None = None
    has_gpu: bool = False
    last_message: datetime | None = None
    killed: RunSession | None = None
    scoring: ScoringContainer | None = None
    evaluated: Evaluated | None = None
    ending: threading.Lock = field(default_factory=threading.Lock)
