"""From a permitted order to a warm container: image, cohort, initial weights, contract, session.

Each step is audited before the next begins. Preparing again after a crash gives the same cohort (a freeze is a function of
its inputs) in a new container. Nothing here talks to a train beyond its hello.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy.orm import Session

from policies.errors import (
    NotFoundError,
    RefusedError,
    StorageError,
    TrustError,
    UnavailableError,
    WireError,
)
from policies.manifest import Interface
from policies.profiles.anonymity import Anonymity
from policies.refusals import Permitted, RefusalCode, Refused
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob
from station.admission.gatekeeper import Admitted, Gatekeeper
from station.admission.gpus import gpu_need
from station.agent.blobs import BlobClient
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue import Catalogue, Standing
from station.catalogue.anonymity import cohort_anonymity, in_words
from station.cohorts import CaseSource, CohortDefinition, CohortKey, FrozenCohort, VolumeCache, freeze, wipe
from station.cohorts.blind import blind_patients
from station.cohorts.roster import Roster
from station.egress.canary.decision import MINIMUM_PATIENTS
from station.egress.contract import CohortCounts, ReleaseContract
from station.evidence.kept import keep_terms
from station.images.store import LayerStore
from station.layout import StationPaths
from station.runs.clock import RunClock
from station.runs.mapping import map_session
from station.runs.moments import Moments
from station.runs.prepared import Prepared, RunSession
from station.runs.repository import STATION_ACTOR, Run, count_as_started
from station.runs.train_logs import TrainLogs
from station.runs.usage import note_use
from station.sandbox.session import Sandbox
from station.sandbox.spec import MIB, ContainerSpec, Launcher, TrainStartError
from station.sandbox.without_program import StationSession
from station.settings import StationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Makes and unmakes what a run needs."""

    settings: StationSettings
    paths: StationPaths
    gatekeeper: Gatekeeper
    catalogue: Catalogue
    bundles: LayerStore
    blobs: BlobClient
    launcher: Launcher
    sandbox: Sandbox
    cohort_key: CohortKey
    audit: AuditLog
    clock: RunClock
    volumes: VolumeCache | None = None
    moments: Moments = field(default_factory=Moments)

    def prepare(
        self, run: Run, admitted: Admitted, begun: Callable[[Prepared], None] = lambda _: None
    ) -> Permitted[Prepared] | Refused:
        """Fetch, verify, freeze and start.

        1. What permits the run is kept, as evidence of it.
        2. The image's blobs, by digest, only what is missing; a train without a program has none.
        3. The image is loaded by the launcher, which hashes every layer and rewrites the config.
        4. The cohort is frozen from patients who consent now.
        5. The initial weights, by the digest that the requester signed.
        6. The contract, from the signed documents and the shapes of those weights.
        7. The container, once. Whoever ends runs is told first: a hello may be an hour coming.

        Args:
            run: to prepare.
            admitted: what permits it.
            begun: told what is prepared before its container starts; that may be ended from then on, and `ended_by` says so.

        Raises:
            NetworkError: no source of images answers; worth asking again.
            UnavailableError: the engine or the launcher does not answer; worth asking again.
            RefusedError: the launcher refuses, a layer holds what is refused, or there is no room for the image.
        """
        order = admitted.order
        manifest = self.bundles.manifest(order.image_config_digest, order.manifest_digest)
        keep_terms(
            self.paths.trust,
            run.order_digest,
            (order.policy_id, order.policy_version),
            manifest,
            self.gatekeeper.now(),
        )
        if admitted.manifest.program is not None and (refused := self._bring_image(run, admitted)):
            return refused
        frozen = self._freeze(run, admitted)
        if isinstance(frozen, Refused):
            return frozen
        return self._equip_or_wipe(run, admitted, *frozen.value, begun)

    def _bring_image(self, run: Run, admitted: Admitted) -> Refused | None:
        order = admitted.order
        try:
            moved = self.bundles.fetch(order.image_config_digest)
        except (WireError, TrustError):
            return Refused.because(
                RefusalCode.IMAGE_DIGEST, "the bytes that were fetched are not what the policy names"
            )
        except NotFoundError as error:
            return Refused.because(RefusalCode.IMAGE_UNAVAILABLE, error.message)
        self._note(run, AuditEvent.IMAGE_FETCHED, order.image_config_digest, {"bytes_moved": moved})
        self.launcher.load_image(order.image_config_digest)
        return None

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
        control = self.paths.control / self.run_id(run)
        _fresh_folder(control, 0o711)
        policy, now = prepared.admitted.verified.in_force.policy, self.gatekeeper.now()
        left_s = self.clock.left_s(run.order_digest, policy.resources.run_hours)

        def count(session: Session) -> None:
            note_use(session, run.order_digest, policy, prepared.cohort, now)
            # With the audit's entry, before there is a container: a station that is killed now has counted the run.
            count_as_started(session, run.order_digest)
            if manifest.interface is not Interface.MAP:
                # A map train's containers run while it is asked: then its time is counted.
                self.clock.start_in(session, run.order_digest)

        self.audit.append(
            self._record(run, AuditEvent.CONTAINER_STARTED, order.image_config_digest, {}),
            count,
        )
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
        # When it says hello is the train's own to choose, and its cohort is there by then.
        quantum = policy.release.timing_quantum_s
        try:
            with self.moments.holding(self.moments.now(), quantum, lambda: prepared.ended_by is not None):
                prepared.session = self.sandbox.start(spec)
            prepared.has_gpu = prepared.session.has_gpu
            prepared.last_message = self.gatekeeper.now()
            if prepared.ended_by is not None:
                # Whoever ended it may have found no container yet.
                self.end_container(run, prepared, prepared.ended_by)
        except TrainStartError as error:
            if error.log:
                self.logs.keep(self.run_id(run), error.log)
            raise
        except BaseException:
            # It may live: the station stops in the wait.
            self.end_container(run, prepared)
            raise
        finally:
            if prepared.session is None or not prepared.session.alive:
                self.clock.stop(run.order_digest)
        return prepared.session

    def spec(
        self, run: Run, prepared: Prepared, interface: Literal["flower", "command", "map"], left_s: float
    ) -> ContainerSpec:
        """Return what the run's container is started with."""
        resources, ceilings = prepared.admitted.manifest.resources, self.settings.ceilings
        return ContainerSpec(
            run_id=self.run_id(run),
            image_config_digest=prepared.admitted.order.image_config_digest,
            cohort_dir=str(prepared.cohort.path),
            control_dir=str(self.paths.control / self.run_id(run)),
            interface=interface,
            memory_bytes=resources.memory_mib * MIB,
            cpus=min(resources.cpus, ceilings.cpus),
            pids=min(resources.pids, ceilings.pids),
            scratch_bytes=min(resources.scratch_mib, ceilings.scratch_mib) * MIB,
            wall_clock_s=max(1, int(left_s)),
            gpu=gpu_need(prepared.admitted),
        )

    def _start_counting(self, run: Run, prepared: Prepared) -> StationSession:
        """Begin to count for a train without a program; audited like a container's start, and counted as one."""
        policy, now = prepared.admitted.verified.in_force.policy, self.gatekeeper.now()

        def count(session: Session) -> None:
            note_use(session, run.order_digest, policy, prepared.cohort, now)
            count_as_started(session, run.order_digest)

        self.audit.append(self._record(run, AuditEvent.COUNTING_STARTED, prepared.cohort.digest, {}), count)
        session = StationSession(self.run_id(run), prepared.admitted.manifest, prepared.roster)
        prepared.session, prepared.last_message = session, now
        return session

    def is_out_of_time(self, run: Run, admitted: Admitted) -> bool:
        """Whether the order's containers have run, all together, as long as its policy grants."""
        return self.clock.is_spent(run.order_digest, admitted.verified.in_force.policy.resources.run_hours)

    def dispose(self, run: Run, prepared: Prepared) -> None:
        """Stop the container and wipe cohort, control socket and work files."""
        try:
            self.end_container(run, prepared)
        finally:
            self._discard(run, prepared.cohort)

    def end_container(self, run: Run, prepared: Prepared, why: RefusalCode | None = None) -> None:
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
                self._note(run, AuditEvent.CONTAINER_ENDED, image, {}, why)
                self._keep_log(run, session)
            finally:
                _kill(session)
                prepared.killed = session
                self.clock.stop(run.order_digest)

    def end_idle(self, run: Run, prepared: Prepared) -> None:
        """End a container that holds a GPU and is asked nothing: audited as what it is, and no failure of the train's."""
        self._note(run, AuditEvent.GPU_GIVEN_BACK, prepared.admitted.order.image_config_digest, {})
        self.end_container(run, prepared)

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
        self.logs.keep(self.run_id(run), text)

    @staticmethod
    def run_id(run: Run) -> str:
        """Return the name of the run's container."""
        return f"run-{run.order_digest.removeprefix('sha256:')[:24]}"

    def _freeze(self, run: Run, admitted: Admitted) -> Permitted[tuple[FrozenCohort, Standing]] | Refused:
        self.catalogue.sync()
        now = self.gatekeeper.now()
        cases = self.catalogue.cases(
            admitted.definition, self.gatekeeper.offered(admitted), self.settings.consent_limit, now
        )
        if isinstance(cases, Refused):
            return cases
        cohort = freeze(admitted.definition, cases, self.paths.cohorts, self.cohort_key, cache=self.volumes)
        if isinstance(cohort, Refused):
            return cohort
        if refused := self._too_few_alike(admitted, cases, cohort):
            wipe(cohort)
            return refused
        counts = {f"{split}_patients": len(patients) for split, patients in cohort.patients_by_split.items()}
        self._note(run, AuditEvent.COHORT_FROZEN, cohort.digest, counts)
        return Permitted((cohort, Standing.of(cases, cohort.patients)))

    def _too_few_alike(
        self, admitted: Admitted, cases: tuple[CaseSource, ...], cohort: FrozenCohort
    ) -> Refused | None:
        minimum = self.settings.hospital.minimum_k
        if minimum is None:
            return None
        found = cohort_anonymity(
            admitted.definition, cases, self.cohort_key, wanted=minimum, patients=cohort.patients
        )
        return Refused.because(RefusalCode.DATA_ANONYMITY, in_words(found)) if found.k < minimum else None

    def anonymity(self, definition: CohortDefinition, cases: tuple[CaseSource, ...]) -> Anonymity:
        """Return the k-anonymity of the table that a train would see."""
        return cohort_anonymity(definition, cases, self.cohort_key, wanted=self.settings.hospital.minimum_k)

    def _equip_or_wipe(
        self,
        run: Run,
        admitted: Admitted,
        cohort: FrozenCohort,
        used: Standing,
        begun: Callable[[Prepared], None],
    ) -> Permitted[Prepared] | Refused:
        result: Permitted[Prepared] | Refused | None = None
        try:
            result = self._equip(run, admitted, cohort, used, begun)
        finally:
            if not isinstance(result, Permitted):
                self._discard(run, cohort)
        return result

    def _discard(self, run: Run, cohort: FrozenCohort) -> None:
        try:
            self._note(run, AuditEvent.COHORT_WIPED, cohort.digest, {})
        finally:
            # Data that nobody may use any more does not wait for an audit that cannot be written.
            wipe(cohort)
            for folder in (self.paths.control, self.paths.work):
                shutil.rmtree(folder / self.run_id(run), ignore_errors=True)

    def _equip(
        self,
        run: Run,
        admitted: Admitted,
        cohort: FrozenCohort,
        used: Standing,
        begun: Callable[[Prepared], None],
    ) -> Permitted[Prepared] | Refused:
        work = self.paths.work / self.run_id(run)
        _fresh_folder(work, 0o700)
        initial, layout = None, None
        if (weights := admitted.order.initial_weights) is not None:
            initial = work / "initial.safetensors"
            try:
                self.blobs.fetch(Blob(digest=weights.digest, size=weights.size), initial)
                layout = read_layout(initial)
            except NotFoundError as error:
                return Refused.because(RefusalCode.ORDER_WEIGHTS, error.message)
            except WireError:
                return Refused.because(
                    RefusalCode.ORDER_WEIGHTS, "not the bytes that the order names, or no weights"
                )
        contract = ReleaseContract.build(admitted.manifest, admitted.verified.in_force.policy, layout)
        if contract.problems:
            return Refused(contract.problems)
        if refused := too_few_to_score(admitted, cohort):
            return refused
        counts = CohortCounts.from_cohort(
            cohort.patients_by_split, cohort.images_by_split, cohort.most_images_of_one
        )
        roster = Roster.of(cohort, admitted.definition, self.cohort_key)
        prepared = Prepared(admitted, cohort, roster, used, counts, work, initial, layout, contract, None)
        begun(prepared)
        self.start(run, prepared)
        return Permitted(prepared)

    def _note(
        self, run: Run, event: AuditEvent, about: str, numbers: dict[str, int], why: RefusalCode | None = None
    ) -> None:
        self.audit.append(self._record(run, event, about, numbers, why))

    @staticmethod
    def _record(
        run: Run, event: AuditEvent, about: str, numbers: dict[str, int], why: RefusalCode | None = None
    ) -> AuditRecord:
        return AuditRecord(
            event=event,
            actor=STATION_ACTOR,
            on_behalf_of=run.requester,
            purpose=run.purpose,
            object=about,
            codes=() if why is None else (why.value,),
            numbers=numbers,
            detail=f"order {run.order_digest} policy {run.policy_id} v{run.policy_version}",
        )


def too_few_to_score(admitted: Admitted, cohort: FrozenCohort) -> Refused | None:
    """Refuse a run of which every update would be withheld for too few patients, before it costs anything."""
    if admitted.verified.in_force.policy.release.membership_limit is None:
        return None
    found = blind_patients(cohort)
    if found >= MINIMUM_PATIENTS:
        return None
    return Refused.because(
        RefusalCode.DATA_TOO_FEW_PATIENTS,
        f"{found} patients are held back or trained on, and scoring an update needs {MINIMUM_PATIENTS} of each",
    )


def _kill(session: RunSession) -> None:
    try:
        session.stop()
    except UnavailableError:
        # The launcher removes every container of ours when it is back.
        log.warning("container.stop_failed")


def _fresh_folder(path: Path, mode: int) -> None:
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        path.chmod(mode)
    except OSError as error:
        raise StorageError(
            f"a run's folder cannot be made ({error.strerror})", hint="Free disk space."
        ) from error
