"""May this order run at this station now? Board AND hospital AND consent AND data AND budget AND resources.

Pure: every fact, the clock included, is a value. All rules are asked, so that an operator sees every "no" at once;
the first refusal in catalogue order is the one told outside. An unknown fact refuses.

The rules, in the order asked:
    1. features   the policy asks for nothing this version cannot do
    2. time       the policy is in force now
    3. purpose    the board's table permits the purpose to such a requester, with the consents that the policy asks for
    4. register   this station and its peers stand in the board's register, with agreements that hold, not withdrawn
    5. order      the order stays within the policy (`order_rules`)
    6. manifest   the train stays within the policy
    7. hospital   the hospital offers a collection for this requester, purpose and country, now
    8. consent    the consent register is fresh enough
    9. data       enough patients are left
   10. budgets    runs, releases and, where the policy has noise, every patient's privacy budget are left
   11. operator   the operator agrees, where the hospital wants that
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from policies.charter import StationRegister
from policies.manifest import Interface, TrainManifest
from policies.order import RunOrder
from policies.policy import ConsentMode, Policy, PurposeCode, RequesterClass
from policies.purposes import PurposeTable
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.rules.board_rules import purpose_reasons, register_reasons, station_reasons
from policies.rules.gpu_rules import gpu_hospital_reasons, gpu_wish
from policies.rules.order_rules import manifest_reasons, order_reasons
from policies.rules.privacy_rules import Shortage, privacy_reasons

Marking = Literal["patient", "public", "synthetic"]
OperatorWord = Literal["not-needed", "approved", "pending", "held"]

CLOCK_TOLERANCE = timedelta(minutes=5)
SUPPORTED_INTERFACES = frozenset(Interface)


@dataclass(frozen=True, slots=True)
class CollectionOffer:
    """What a hospital offers of one collection, and to whom; an empty set offers nothing.

    Attributes:
        marking: `patient` data, or data that is `public` or `synthetic` (reachable by development policies).
        consent_mode: how its patients were asked.
    """

    marking: Marking
    consent_mode: ConsentMode
    requester_classes: frozenset[RequesterClass]
    purposes: frozenset[PurposeCode]
    countries: frozenset[str]


@dataclass(frozen=True, slots=True)
class HospitalRules:
    """The hospital's own rules, which only narrow.

    Attributes:
        consent_limit: a consent source older than this refuses.
        quiet: whether `now` falls into the hours in which nothing may run.
        gpu_memory_mib: of each GPU that the hospital leases; None where that is not known.
    """

    station: str
    collections: Mapping[str, CollectionOffer]
    memory_mib: int
    cpus: float
    consent_limit: timedelta
    quiet: bool
    gpu_memory_mib: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used before, from the station's durable counters.

    Attributes:
        runs: other orders admitted under this policy.
        releases: releases made under this policy, this order's included.
        releases_of_order: releases made under this order.
        order_finished: whether the order was finished here before.
    """

    runs: int
    releases: int
    releases_of_order: int
    order_finished: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision rests on.

    Attributes:
        policy_digest: of the policy file's signed bytes.
        purposes: the board's table of purposes; None where it has published none.
        revoked_stations: those that the board withdrew.
        consent_age: since the consent source was made; None when there is none.
        patients: with consent and data for this policy; None when not counted yet (that alone does not refuse:
            the count is asked again when the cohort is frozen).
        privacy: who has too little left of a privacy budget for what is to come; None where nobody is charged, or when not
            asked yet (that alone does not refuse: everybody is charged before noise is drawn, or nothing leaves).
    """

    now: datetime
    order: RunOrder
    policy: Policy
    policy_digest: str
    manifest: TrainManifest
    register: StationRegister
    purposes: PurposeTable | None
    revoked_stations: frozenset[str]
    hospital: HospitalRules
    usage: Usage
    consent_age: timedelta | None
    patients: int | None
    operator: OperatorWord
    privacy: Shortage | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """What a permitted order may use.

    Attributes:
        collections: those that board and hospital both grant.
    """

    collections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's answer; no reasons means yes."""

    rule: str
    reasons: tuple[Reason, ...]


def decide(facts: Facts) -> Permitted[Admission] | Refused:
    """Ask every rule; permit only if none refuses."""
    reasons = tuple(reason for verdict in explain(facts) for reason in verdict.reasons)
    if reasons:
        return Refused(reasons)
    return Permitted(Admission(tuple(sorted(open_collections(facts)))))


def explain(facts: Facts) -> tuple[Verdict, ...]:
    """Return each rule's verdict, in the order of the module's text."""
    return tuple(Verdict(name, tuple(rule(facts))) for name, rule in _RULES)


def open_collections(facts: Facts) -> frozenset[str]:
    """Return the collections that board and hospital both open to this requester for this purpose."""
    return frozenset(
        name
        for name, offer in facts.hospital.collections.items()
        if name in facts.policy.data.collections and not _closed(offer, facts.policy)
    )


def _closed(offer: CollectionOffer, policy: Policy) -> RefusalCode | None:
    requester = policy.requester
    if policy.role == "development" and offer.marking == "patient":
        return RefusalCode.HOSPITAL_COLLECTION
    if offer.consent_mode not in policy.data.consent_modes:
        return RefusalCode.HOSPITAL_COLLECTION
    if requester.requester_class not in offer.requester_classes:
        return RefusalCode.HOSPITAL_REQUESTER_CLASS
    if policy.purpose.code not in offer.purposes:
        return RefusalCode.HOSPITAL_PURPOSE
    if requester.country not in offer.countries:
        return RefusalCode.HOSPITAL_COUNTRY
    return None


def _features(facts: Facts) -> list[Reason]:
    release = facts.policy.release
    found = []
    if release.secure_aggregation:
        found.append(Reason(RefusalCode.SECURE_AGGREGATION_UNSUPPORTED))
    if facts.manifest.interface not in SUPPORTED_INTERFACES:
        found.append(Reason(RefusalCode.INTERFACE_UNSUPPORTED, facts.manifest.interface))
    return found


def _time(facts: Facts) -> list[Reason]:
    if facts.now < facts.policy.valid_from:
        return [Reason(RefusalCode.POLICY_NOT_YET_VALID)]
    if facts.now >= facts.policy.valid_until:
        return [Reason(RefusalCode.POLICY_EXPIRED)]
    if facts.now.date() > facts.policy.legal.agreement.expires:
        return [Reason(RefusalCode.AGREEMENT_EXPIRED, "the requester's agreement")]
    return []


def _purpose(facts: Facts) -> list[Reason]:
    return purpose_reasons(facts.policy, facts.purposes)


def _register(facts: Facts) -> list[Reason]:
    found = station_reasons(facts.order, facts.policy, facts.hospital.station, facts.revoked_stations)
    if facts.hospital.station not in facts.order.stations:
        # Who the others are matters less than that it was not asked.
        found.append(Reason(RefusalCode.ORDER_STATION, "the order does not name this station"))
    found += register_reasons(
        facts.order,
        facts.policy,
        facts.hospital.station,
        facts.register,
        facts.revoked_stations,
        facts.now.date(),
    )
    return found


def _order(facts: Facts) -> list[Reason]:
    found = order_reasons(facts.order, facts.policy, facts.policy_digest, facts.now)
    if facts.usage.order_finished:
        found.insert(0, Reason(RefusalCode.ORDER_SPENT, "finished here before"))
    return found


def _manifest(facts: Facts) -> list[Reason]:
    return manifest_reasons(facts.order, facts.manifest, facts.policy)


def _hospital(facts: Facts) -> list[Reason]:
    found = []
    if not open_collections(facts):
        granted = [facts.hospital.collections.get(name) for name in facts.policy.data.collections]
        closed = [code for offer in granted if offer is not None and (code := _closed(offer, facts.policy))]
        found.append(Reason(closed[0] if closed else RefusalCode.HOSPITAL_COLLECTION))
    resources = facts.manifest.resources
    if resources.memory_mib > facts.hospital.memory_mib or resources.cpus > facts.hospital.cpus:
        found.append(
            Reason(RefusalCode.HOSPITAL_RESOURCES, "asks for more memory or CPU than the hospital gives")
        )
    wish = gpu_wish(facts.order, facts.manifest, facts.policy)
    found += gpu_hospital_reasons(wish, facts.hospital.gpu_memory_mib)
    if facts.hospital.quiet:
        found.append(Reason(RefusalCode.HOSPITAL_QUIET_HOURS))
    return found


def _consent(facts: Facts) -> list[Reason]:
    if facts.consent_age is None:
        return [Reason(RefusalCode.CONSENT_UNKNOWN, "no consent register was imported")]
    if facts.consent_age < -CLOCK_TOLERANCE:
        # Dated in the future: how old it is cannot be known.
        return [Reason(RefusalCode.CONSENT_UNKNOWN, "the consent register is dated in the future")]
    if facts.consent_age > facts.hospital.consent_limit:
        return [Reason(RefusalCode.CONSENT_STALE)]
    return []


def _data(facts: Facts) -> list[Reason]:
    if facts.patients is not None and facts.patients < facts.policy.data.minimum_patients:
        left, needed = facts.patients, facts.policy.data.minimum_patients
        return [Reason(RefusalCode.DATA_TOO_FEW_PATIENTS, f"{left} are left, the policy asks for {needed}")]
    return []


def _budgets(facts: Facts) -> list[Reason]:
    found = []
    if facts.usage.runs >= facts.policy.runs.runs:
        found.append(Reason(RefusalCode.BUDGET_RUNS))
    still_to_come = len(facts.order.stages) * facts.order.rounds - facts.usage.releases_of_order
    if facts.usage.releases + still_to_come > facts.policy.runs.releases:
        found.append(Reason(RefusalCode.BUDGET_RELEASES))
    return found + privacy_reasons(facts.order, facts.policy, facts.manifest, facts.privacy)


def _operator(facts: Facts) -> list[Reason]:
    match facts.operator:
        case "held":
            return [Reason(RefusalCode.HOSPITAL_HELD)]
        case "pending":
            return [Reason(RefusalCode.OPERATOR_PENDING)]
        case "approved" | "not-needed":
            return []


_RULES: tuple[tuple[str, Callable[[Facts], list[Reason]]], ...] = (
    ("features", _features),
    ("time", _time),
    ("purpose", _purpose),
    ("register", _register),
    ("order", _order),
    ("manifest", _manifest),
    ("hospital", _hospital),
    ("consent", _consent),
    ("data", _data),
    ("budgets", _budgets),
    ("operator", _operator),
)
