"""From a permitted order to what its container is given: image, cohort, initial weights, contract; and the way back.

Its container is started last, by `station.runs.containers`. Each step is audited before the next begins. Preparing again after a crash gives the same cohort (a freeze is a function of
its inputs) in a new container. Nothing here talks to a train beyond its hello.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from policies.errors import NotFoundError, TrustError, WireError
from policies.profiles.anonymity import Anonymity
from policies.refusals import Permitted, RefusalCode, Refused
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob
from station.admission.gatekeeper import Admitted, Gatekeeper
from station.agent.blobs import BlobClient
from station.audit.events import AuditEvent
from station.audit.log import AuditLog
from station.catalogue import Catalogue, Standing
from station.catalogue.anonymity import cohort_anonymity, in_words
from station.cohorts import (
    CaseSource,
    CohortDefinition,
    CohortKey,
    DecoderPool,
    FrozenCohort,
    VolumeCache,
    freeze,
    wipe,
)
from station.cohorts.blind import blind_patients
from station.cohorts.roster import Roster
from station.egress.canary.decision import MINIMUM_PATIENTS
from station.egress.contract import CohortCounts, ReleaseContract
from station.evidence.kept import keep_terms
from station.images.store import LayerStore
from station.layout import StationPaths
from station.runs.audited import entry_of
from station.runs.containers import RunContainers
from station.runs.places import fresh_folder, run_id
from station.runs.prepared import Prepared
from station.runs.repository import Run
from station.sandbox.spec import Launcher
from station.settings import StationSettings


@dataclass(frozen=True, slots=True)
class Preparation:
    """Makes and unmakes what a run needs.

    Attributes:
        volumes: kept from cohort to cohort; None makes each anew.
        decoders: processes that read images; None starts some for each cohort and ends them with it, as a station does.
    """

    settings: StationSettings
    paths: StationPaths
    gatekeeper: Gatekeeper
    catalogue: Catalogue
    bundles: LayerStore
    blobs: BlobClient
    launcher: Launcher
    containers: RunContainers
    cohort_key: CohortKey
    audit: AuditLog
    volumes: VolumeCache | None = None
    decoders: DecoderPool | None = None

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
        result: Permitted[Prepared] | Refused | None = None
        try:
            result = self._equip(run, admitted, frozen.value, begun)
        finally:
            if not isinstance(result, Permitted):
                self._discard(run, frozen.value[0])
        return result

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
        self.audit.append(
            entry_of(run, AuditEvent.IMAGE_FETCHED, order.image_config_digest, {"bytes_moved": moved})
        )
        self.launcher.load_image(order.image_config_digest)
        return None

    def dispose(self, run: Run, prepared: Prepared) -> None:
        """Stop the container and wipe cohort, control socket and work files."""
        try:
            self.containers.end(run, prepared)
        finally:
            self._discard(run, prepared.cohort)

    def _freeze(self, run: Run, admitted: Admitted) -> Permitted[tuple[FrozenCohort, Standing]] | Refused:
        self.catalogue.sync()
        now = self.gatekeeper.now()
        cases = self.catalogue.cases(
            admitted.definition, self.gatekeeper.offered(admitted), self.settings.consent_limit, now
        )
        if isinstance(cases, Refused):
            return cases
        cohort = freeze(
            admitted.definition,
            cases,
            self.paths.cohorts,
            self.cohort_key,
            pool=self.decoders,
            cache=self.volumes,
        )
        if isinstance(cohort, Refused):
            return cohort
        if refused := self._too_few_alike(admitted, cases, cohort):
            wipe(cohort)
            return refused
        counts = {f"{split}_patients": len(patients) for split, patients in cohort.patients_by_split.items()}
        self.audit.append(entry_of(run, AuditEvent.COHORT_FROZEN, cohort.digest, counts))
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

    def _discard(self, run: Run, cohort: FrozenCohort) -> None:
        try:
            self.audit.append(entry_of(run, AuditEvent.COHORT_WIPED, cohort.digest, {}))
        finally:
            # Data that nobody may use any more does not wait for an audit that cannot be written.
            wipe(cohort)
            for folder in (self.paths.control, self.paths.work):
                shutil.rmtree(folder / run_id(run), ignore_errors=True)

    def _equip(
        self,
        run: Run,
        admitted: Admitted,
        frozen: tuple[FrozenCohort, Standing],
        begun: Callable[[Prepared], None],
    ) -> Permitted[Prepared] | Refused:
        cohort, used = frozen
        work = self.paths.work / run_id(run)
        fresh_folder(work, 0o700)
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
        self.containers.start(run, prepared)
        return Permitted(prepared)


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
