"""May this order run here? Gathers every fact, asks the pure rules, and returns what is permitted as one value.

The gatekeeper reads (policy repository, register, catalogue, counters) and decides nothing itself; whoever acts on a
decision audits it in the same transaction as the act. Invariants: an order is read only with the signature of the
requester whom a policy in force names; a train's manifest only with the digest that policy names; a policy set that
is stale, or cannot be verified, refuses.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from policies.charter import StationRegister
from policies.documents import digest_of, load_yaml
from policies.errors import DocumentError, TrustError
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE, RunOrder, unverified_order
from policies.policy import ConsentMode
from policies.purposes import PurposeTable
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.rules.admission import (
    Admission,
    Facts,
    OperatorWord,
    Usage,
    Verdict,
    decide,
    explain,
    open_collections,
)
from policies.rules.board_rules import purpose_reasons, register_reasons, station_reasons
from policies.rules.gpu_rules import gpu_wish
from policies.rules.order_rules import verified_order
from policies.signing import unsafe_payload
from policies.trust.client import PolicyClient
from policies.trust.policy_set import PolicySet
from policies.trust.verification import PolicyInForce
from station.admission.privacy import NoBooks, PrivacyBooks, with_privacy
from station.admission.records import RecordKeeping, Unwitnessed
from station.catalogue import Catalogue, Standing
from station.cohorts import CaseSource, CohortDefinition, define
from station.runs.repository import Run
from station.runs.states import Decision, RunState
from station.settings import StationSettings


class Counters(Protocol):
    """The durable counters that only grow."""

    def runs_used(self, policy_id: str, *, besides: str | None = None) -> int:
        """Orders that are or were a run of the policy, but `besides`."""

    def releases_used(self, policy_id: str) -> int:
        """Releases made under the policy, ever."""

    def releases_of(self, order_digest: str) -> int:
        """Releases made under the order."""

    def answers_of(self, order_digest: str) -> int:
        """Messages of the order that are not asked of its train again: recorded, waiting for a person, or withheld by one."""


class Manifests(Protocol):
    """Where manifests come from."""

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return the manifest's bytes, verified against its digest.

        Raises:
            NotFoundError: the orchestrator has no such bundle.
            NetworkError: it does not answer.
        """


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """An order whose requester signed it, and the policy in force that names this requester.

    Attributes:
        digest: of the signed bytes: two envelopes around the same words are one order.
        register: the board's register, as it was when the order was verified; so are the next two.
        purposes: the board's table of purposes.
        revoked_stations: those that the board withdrew.
    """

    digest: str
    order: RunOrder
    in_force: PolicyInForce
    register: StationRegister
    purposes: PurposeTable | None
    revoked_stations: frozenset[str]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A permitted order with everything that its run needs."""

    verified: VerifiedOrder
    manifest: TrainManifest
    definition: CohortDefinition
    admission: Admission

    @property
    def order(self) -> RunOrder:
        """The run order."""
        return self.verified.order


class Gatekeeper:
    """Asks every rule of board, hospital, consent, data, budget and operator."""

    def __init__(
        self,
        settings: StationSettings,
        policies: PolicyClient,
        catalogue: Catalogue,
        counters: Counters,
        manifests: Manifests,
        clock: Callable[[], datetime],
        records: RecordKeeping | None = None,
        gpus: Callable[[], tuple[int, ...] | None] = lambda: None,
        privacy: PrivacyBooks | None = None,
    ) -> None:
        self._privacy = privacy or NoBooks()
        self._records = records or Unwitnessed()
        self._settings = settings
        self._policies = policies
        self._catalogue = catalogue
        self._counters = counters
        self._manifests = manifests
        self._clock = clock
        self._gpus = gpus
        self._refreshing = threading.Lock()
        self.asked = threading.Event()
        self._last: tuple[PolicySet | None, datetime | None] = (None, None)

    def now(self) -> datetime:
        """Return the moment it is, by the station's clock."""
        return self._clock()

    def records_reason(self) -> Reason | None:
        """Return why nothing may run on the station's own records now."""
        return self._records.reason()

    def policy_set(self, *, fresh: bool) -> Permitted[PolicySet] | Refused:
        """Return the verified policy set.

        Args:
            fresh: ask the mirror now; else only when the settings' interval has passed.
        """
        now = self._clock()
        known, asked = self._last
        if not fresh and known is not None and asked is not None and now < known.state.expires:
            interval = timedelta(seconds=self._settings.polling.trust_refresh_s)
            # Where the mirror is being asked just now, what was verified last counts meanwhile.
            if now - asked < interval or self._refreshing.locked():
                return Permitted(known)
        with self._refreshing:
            result = self._policies.refresh(now)
            if isinstance(result, Permitted):
                # Before anything is decided by it.
                self._records.note_trust(result.value)
            self._last = (result.value if isinstance(result, Permitted) else None, now)
            return result

    def verify(self, envelope: bytes, *, fresh: bool) -> Permitted[VerifiedOrder] | Refused:
        """Find the policy an order names, and check that its requester signed the order.

        1. Its claim is read, unverified, only to learn which policy to look for.
        2. That policy is in force in the board's repository, and its requester was not withdrawn.
        3. The order is signed by the key the policy names; from here its words count.
        4. Neither this station nor too many of the others were withdrawn.
        Before all: the station's records are the newest there were, and the order is not from before a restoration.
        """
        if reason := self._records.reason():
            return Refused((reason,))
        try:
            claim = unverified_order(envelope)
        except (TrustError, DocumentError) as error:
            return Refused.because(RefusalCode.ORDER_INVALID, error.message)
        policies = self.policy_set(fresh=fresh)
        if not fresh:
            # No message waits for the mirror, but each has it asked while the train works.
            self.asked.set()
        if isinstance(policies, Refused):
            return policies
        found = policies.value.find(claim.policy_id, claim.policy_version)
        missing = isinstance(found, Refused) and found.code is RefusalCode.POLICY_MISSING
        if (missing or policies.value.register is None) and not policies.value.state.reached:
            # What was never seen here may have been published since: nobody knows before the mirror answers.
            return Refused.because(RefusalCode.TRUST_UNREACHABLE, "the mirror did not answer just now")
        if isinstance(found, Refused):
            return found
        if policies.value.register is None:
            return Refused.because(RefusalCode.STATION_NOT_REGISTERED, "the board has published no register")
        verified = verified_order(envelope, found.value.policy)
        if isinstance(verified, Refused):
            return verified
        revoked = policies.value.revoked_stations
        if reasons := self._stations(verified.value, found.value, revoked):
            return Refused(tuple(reasons))
        digest = digest_of(unsafe_payload(envelope, PAYLOAD_TYPE))
        if reason := self._records.spent(digest, verified.value.issued):
            return Refused((reason,))
        return Permitted(
            VerifiedOrder(
                digest,
                verified.value,
                found.value,
                policies.value.register,
                policies.value.purposes,
                revoked,
            )
        )

    def _stations(self, order: RunOrder, in_force: PolicyInForce, revoked: frozenset[str]) -> list[Reason]:
        return station_reasons(order, in_force.policy, self._settings.name, revoked)

    def no_longer_in_force(self, verified: VerifiedOrder) -> Reason | None:
        """Return why an order may not go on, from the last verified set; asks no network and waits for none."""
        if reason := self._records.reason():
            return reason
        known, now = self._last[0], self._clock()
        if known is None or now >= known.state.expires:
            return Reason(RefusalCode.TRUST_EXPIRED)
        policy = verified.in_force.policy
        found = known.find(policy.id, policy.version)
        if isinstance(found, Refused):
            return found.reasons[0]
        if found.value.digest != verified.in_force.digest:
            return Reason(RefusalCode.POLICY_DIGEST)
        reasons = [
            *self._stations(verified.order, found.value, known.revoked_stations),
            *register_reasons(
                verified.order,
                policy,
                self._settings.name,
                known.register,
                known.revoked_stations,
                now.date(),
            ),
            *purpose_reasons(policy, known.purposes),
        ]
        if reasons:
            return reasons[0]
        if now >= policy.valid_until:
            return Reason(RefusalCode.POLICY_EXPIRED)
        return Reason(RefusalCode.ORDER_EXPIRED) if now >= verified.order.expires else None

    def manifest(self, verified: VerifiedOrder) -> Permitted[TrainManifest] | Refused:
        """Read the train's manifest by the digest that the policy names.

        Raises:
            NetworkError: the orchestrator does not answer.
            NotFoundError: it has no such bundle.
        """
        policy = verified.in_force.policy
        if verified.order.manifest_digest != policy.manifest_digest:
            return Refused.because(RefusalCode.MANIFEST_DIGEST)
        if verified.order.image_config_digest not in policy.image_config_digests:
            return Refused.because(RefusalCode.IMAGE_DIGEST, "the image is not one the policy names")
        data = self._manifests.manifest(verified.order.image_config_digest, policy.manifest_digest)
        try:
            return Permitted(load_yaml(TrainManifest, data, what="train.yaml"))
        except DocumentError as error:
            return Refused.because(RefusalCode.MANIFEST_INVALID, error.message)

    def facts(self, run: Run, verified: VerifiedOrder, manifest: TrainManifest) -> Facts:
        """Gather everything the rules ask for; the clock is read once."""
        now = self._clock()
        policy = verified.in_force.policy
        hospital = self._settings.hospital_rules(now)
        if gpu_wish(verified.order, manifest, policy) is not None:
            hospital = replace(hospital, gpu_memory_mib=self._gpus())
        return Facts(
            now=now,
            order=verified.order,
            policy=policy,
            policy_digest=verified.in_force.digest,
            manifest=manifest,
            register=verified.register,
            purposes=verified.purposes,
            revoked_stations=verified.revoked_stations,
            hospital=hospital,
            usage=Usage(
                runs=self._counters.runs_used(policy.id, besides=run.order_digest),
                releases=self._counters.releases_used(policy.id),
                releases_of_order=self._counters.releases_of(run.order_digest),
                order_finished=run.state is RunState.FINISHED,
            ),
            consent_age=self._catalogue.consent_age(now),
            patients=None,
            operator=self._operator(run, manifest),
        )

    def decide(
        self, run: Run, verified: VerifiedOrder, manifest: TrainManifest, *, priced: bool = True
    ) -> Permitted[Admitted] | Refused:
        """Ask every rule now.

        Args:
            run: of the order.
            verified: the order.
            manifest: its train's.
            priced: whether patients must have left what is to come costs them; not for an answer that was paid for.
        """
        facts = self.facts(run, verified, manifest)
        decision = decide(self._with_privacy(run, facts) if priced else facts)
        if isinstance(decision, Refused):
            return decision
        definition = define(verified.in_force.policy, manifest)
        if isinstance(definition, Refused):
            return definition
        return Permitted(Admitted(verified, manifest, definition, decision.value))

    def _with_privacy(self, run: Run, facts: Facts) -> Facts:
        """Ask the books whether everybody whom the run may be computed on can be charged for what is to come."""
        if facts.policy.release.differential_privacy is None:
            return facts
        usable = self._usable(facts)
        if isinstance(usable, Refused):
            return facts
        answers = self._counters.answers_of(run.order_digest)
        return with_privacy(facts, self._privacy, usable.patients, answers=answers, begun=run.started)

    def explain(
        self, run: Run, verified: VerifiedOrder, manifest: TrainManifest, patients: int | None
    ) -> tuple[Verdict, ...]:
        """Return each rule's verdict now, the last of them: can a cohort be defined within what the policy grants?

        Args:
            run: of the order.
            verified: the order.
            manifest: its train's.
            patients: those left for the cohort; None where nobody can count them.
        """
        facts = self._with_privacy(run, self.facts(run, verified, manifest))
        verdicts = explain(replace(facts, patients=patients))
        definition = define(verified.in_force.policy, manifest)
        return (*verdicts, Verdict("cohort", definition.reasons if isinstance(definition, Refused) else ()))

    def would_use(
        self, run: Run, verified: VerifiedOrder, manifest: TrainManifest
    ) -> Permitted[tuple[CohortDefinition, tuple[CaseSource, ...]]] | Refused:
        """Return what a cohort of this order would be made from now, whatever other rules say of it."""
        definition = define(verified.in_force.policy, manifest)
        if isinstance(definition, Refused):
            return definition
        facts = self.facts(run, verified, manifest)
        modes = self._settings.consent_modes
        cases = self._catalogue.cases(
            definition,
            {name: modes[name] for name in open_collections(facts)},
            self._settings.consent_limit,
            facts.now,
        )
        return cases if isinstance(cases, Refused) else Permitted((definition, cases))

    def offered(self, admitted: Admitted) -> dict[str, ConsentMode]:
        """Return the collections that board and hospital both open, with how their patients were asked."""
        modes = self._settings.consent_modes
        return {name: modes[name] for name in admitted.admission.collections}

    def consenting(self, admitted: Admitted) -> Standing | Refused:
        """Return the patients whose data this run may use now, and which files."""
        return self._catalogue.standing(
            admitted.definition, self.offered(admitted), self._settings.consent_limit, self._clock()
        )

    def still_usable(self, run: Run, verified: VerifiedOrder, manifest: TrainManifest) -> Standing | Refused:
        """Return the patients whose data an order may use now, and which files, whether or not it could run now."""
        return self._usable(self.facts(run, verified, manifest))

    def _usable(self, facts: Facts) -> Standing | Refused:
        definition, modes = define(facts.policy, facts.manifest), self._settings.consent_modes
        if isinstance(definition, Refused):
            return definition
        offered = {name: modes[name] for name in open_collections(facts)}
        return self._catalogue.standing(definition, offered, self._settings.consent_limit, facts.now)

    def without_data(self, patients: frozenset[str]) -> frozenset[str]:
        """Return those of them who have nothing here any more: merged into another, or removed; not who withdrew."""
        return self._catalogue.without_data(patients)

    def _operator(self, run: Run, manifest: TrainManifest) -> OperatorWord:
        if run.decision is Decision.HELD:
            return "held"
        if not self._settings.needs_operator(manifest.kind) or run.decision is Decision.APPROVED:
            return "approved" if run.decision is Decision.APPROVED else "not-needed"
        return "pending"
