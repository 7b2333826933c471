"""The container of a prepared run: how it is started, how it ends, and how long it ran.

Its start is audited before there is a container, in one transaction with what counts the run against its policy and its time; its end
is audited before it is killed, and killed also where the audit fails. What the train printed is kept when its container goes. A train
without a program has no container: what counts for it starts and ends here in its place.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from policies.errors import RefusedError, UnavailableError
from policies.manifest import Interface
from policies.refusals import RefusalCode
from station.admission.gatekeeper import Admitted
from station.admission.gpus import gpu_need
from station.audit.events import AuditEvent
from station.audit.log import AuditLog
from station.layout import StationPaths
from station.runs.audited import entry_of
from station.runs.clock import RunClock
from station.runs.mapping import map_session
from station.runs.moments import Moments
from station.runs.places import fresh_folder, run_id
from station.runs.prepared import Prepared, RunSession
from station.runs.repository import Run, count_as_started
from station.runs.train_logs import TrainLogs
from station.runs.usage import note_use
from station.sandbox.session import Sandbox
from station.sandbox.spec import MIB, ContainerSpec, TrainStartError
from station.sandbox.without_program import StationSession
from station.settings import StationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunContainers:
    """Starts and ends the containers of runs.

    Attributes:
        clock: how long they ran.
        now: the station's clock.
        moments: when what a train answers may tell anything.
    """

    settings: StationSettings
    paths: StationPaths
    sandbox: Sandbox
    audit: AuditLog
    clock: RunClock
    now: Callable[[], datetime]
    moments: Moments = field(default_factory=Moments)

    def start(self, run: Run, prepared: Prepared) -> RunSession:
        """Start the run's container (again), audited first; a map train's are started patient by patient.

        Where something ends the run meanwhile (`ended_by`), its container is ended too, and what is returned takes no message.

        Raises:
            TrainStartError: it did not get as far as its hello.
            RefusedError, UnavailableError: from the launcher.
        """
        order, manifest = prepared.admitted.order, prepared.admitted.manifest
        if (interface := manifest.program) is None:
            return self._start_counting(run, prepared)
        fresh_folder(self.paths.control / run_id(run), 0o711)
        policy, now = prepared.admitted.verified.in_force.policy, self.now()
        left_s = self.clock.left_s(run.order_digest, policy.resources.run_hours)

        def count(session: Session) -> None:
            note_use(session, run.order_digest, policy, prepared.cohort, now)
            # With the audit's entry, before there is a container: a station that is killed now has counted the run.
            count_as_started(session, run.order_digest)
            if manifest.interface is not Interface.MAP:
                # A map train's containers run while it is asked: then its time is counted.
                self.clock.start_in(session, run.order_digest)

        self.audit.append(entry_of(run, AuditEvent.CONTAINER_STARTED, order.image_config_digest, {}), count)
        spec = self.spec(run, prepared, interface, left_s)
        if manifest.interface is Interface.MAP:
            prepared.session = map_session(
                self.sandbox,
                spec,
                prepared.admitted,
                (prepared.cohort, prepared.roster),
                self.settings,
            )
            return prepared.session
        return self._start_one(run, prepared, spec)

    def _start_one(self, run: Run, prepared: Prepared, spec: ContainerSpec) -> RunSession:
        """Start the one container of a train that stays warm; its time counts already."""
        # When it says hello is the train's own to choose, and its cohort is there by then.
        quantum = prepared.admitted.verified.in_force.policy.release.timing_quantum_s
        try:
            with self.moments.holding(self.moments.now(), quantum, lambda: prepared.ended_by is not None):
                prepared.session = self.sandbox.start(spec)
            prepared.has_gpu = prepared.session.has_gpu
            prepared.last_message = self.now()
            if prepared.ended_by is not None:
                # Whoever ended it may have found no container yet.
                self.end(run, prepared, prepared.ended_by)
        except TrainStartError as error:
            if error.log:
                self.logs.keep(run_id(run), error.log)
            raise
        except BaseException:
            # It may live: the station stops in the wait.
            self.end(run, prepared)
            raise
        finally:
            if prepared.session is None or not prepared.session.alive:
                self.clock.stop(run.order_digest)
        return prepared.session

    def _start_counting(self, run: Run, prepared: Prepared) -> StationSession:
        """Begin to count for a train without a program; audited like a container's start, and counted as one."""
        policy, now = prepared.admitted.verified.in_force.policy, self.now()

        def count(session: Session) -> None:
            note_use(session, run.order_digest, policy, prepared.cohort, now)
            count_as_started(session, run.order_digest)

        self.audit.append(entry_of(run, AuditEvent.COUNTING_STARTED, prepared.cohort.digest, {}), count)
        session = StationSession(run_id(run), prepared.admitted.manifest, prepared.roster)
        prepared.session, prepared.last_message = session, now
        return session

    def spec(
        self, run: Run, prepared: Prepared, interface: Literal["flower", "command", "map"], left_s: float
    ) -> ContainerSpec:
        """Return what the run's container is started with."""
        resources, ceilings = prepared.admitted.manifest.resources, self.settings.ceilings
        return ContainerSpec(
            run_id=run_id(run),
            image_config_digest=prepared.admitted.order.image_config_digest,
            cohort_dir=str(prepared.cohort.path),
            control_dir=str(self.paths.control / run_id(run)),
            interface=interface,
            memory_bytes=resources.memory_mib * MIB,
            cpus=min(resources.cpus, ceilings.cpus),
            pids=min(resources.pids, ceilings.pids),
            scratch_bytes=min(resources.scratch_mib, ceilings.scratch_mib) * MIB,
            wall_clock_s=max(1, int(left_s)),
            gpu=gpu_need(prepared.admitted),
        )

    def is_out_of_time(self, run: Run, admitted: Admitted) -> bool:
        """Whether the order's containers have run, all together, as long as its policy grants."""
        return self.clock.is_spent(run.order_digest, admitted.verified.in_force.policy.resources.run_hours)

    def end(self, run: Run, prepared: Prepared, why: RefusalCode | None = None) -> None:
        """Audit a container's end, keep the end of its log, and kill it; killed also where the audit fails."""
        if prepared.scoring is not None:
            prepared.scoring.end()
        with prepared.ending:
            session = prepared.session
            if session is None or session is prepared.killed:
                return
            if isinstance(session, StationSession):
                session.stop()
                prepared.killed = session
                return
            try:
                image = prepared.admitted.order.image_config_digest
                self.audit.append(entry_of(run, AuditEvent.CONTAINER_ENDED, image, {}, why=why))
                self._keep_log(run, session)
            finally:
                _kill(session)
                prepared.killed = session
                self.clock.stop(run.order_digest)

    def end_idle(self, run: Run, prepared: Prepared) -> None:
        """End a container that holds a GPU and is asked nothing: audited as what it is, and no failure of the train's."""
        image = prepared.admitted.order.image_config_digest
        self.audit.append(entry_of(run, AuditEvent.GPU_GIVEN_BACK, image, {}))
        self.end(run, prepared)

    @property
    def logs(self) -> TrainLogs:
        """What trains wrote, for the operator."""
        return TrainLogs(self.paths.train_logs)

    def _keep_log(self, run: Run, session: RunSession) -> None:
        """Keep the end of what the train wrote, for the operator; asked before its container goes."""
        try:
            text = session.logs()
        except (UnavailableError, RefusedError):
            return
        self.logs.keep(run_id(run), text)


def _kill(session: RunSession) -> None:
    try:
        session.stop()
    except UnavailableError:
        # The launcher removes every container of ours when it is back.
        log.warning("container.stop_failed")
