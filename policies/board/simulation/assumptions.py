"""The facts that a station's rules rest on, as far as a profile knows them; the most favourable ones where it does not.

So a refusal under these facts is a refusal whatever the unknown ones are, and a "yes" is only as good as what is known: which
is which is said in `policies.board.simulation.answers`. No rule is written here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policies.charter import RegisteredStation, StationRegister
from policies.documents import canonical_json, format_moment
from policies.errors import DocumentError
from policies.manifest import PROXIMAL_MU, TrainKind, TrainManifest
from policies.order import RunOrder, StrategyChoice
from policies.policy import Policy
from policies.purposes import PurposeTable
from policies.refusals import Reason
from policies.rules.admission import CollectionOffer, Facts, HospitalRules, Usage, open_collections
from policies.rules.hours import in_quiet_hours
from policies.station_profile import StationProfile
from policies.strategies import mildest

ROUNDING: Final = 9
"""Stations tell counts rounded up or down to ten: what is told as 30 was 21 to 39."""

_UNUSED: Final = Usage(runs=0, releases=0, releases_of_order=0, order_finished=False)
_ANY: Final = "0" * 32
_ANY_GPU_MIB: Final = 1 << 20
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every station.

    Attributes:
        policy_digest: of the policy file's bytes.
        manifest: None where no train was given.
        order: verified; None where none was given.
        register: None where no repository was given.
        purposes: the board's table; None where it has none, or no repository was given.
        revoked_stations: those that the board withdrew.
        now: the moment that is asked about.
        withdrawn: why the policy itself, or its requester, counts no more; None where no repository was given.
    """

    policy: Policy
    policy_digest: str
    manifest: TrainManifest | None
    order: RunOrder | None
    register: StationRegister | None
    purposes: PurposeTable | None
    revoked_stations: frozenset[str]
    now: datetime
    withdrawn: tuple[Reason, ...] | None = None


def facts_for(question: Question, profile: StationProfile, stations: Iterable[str]) -> Facts:
    """Return the facts of one station.

    Args:
        question: what is asked.
        profile: verified.
        stations: whom an order could name.
    """
    policy = question.policy
    manifest = question.manifest or _modest_train(policy)
    order = question.order or widest_order(question, manifest, stations)
    return Facts(
        now=question.now,
        order=order,
        policy=policy,
        policy_digest=question.policy_digest,
        manifest=manifest,
        register=_register(question, {profile.station, *order.stations}),
        purposes=question.purposes if question.register is not None else _permitting(policy),
        revoked_stations=question.revoked_stations,
        hospital=_with_any_gpu(hospital_rules(profile, question.now)),
        usage=_UNUSED,
        consent_age=timedelta(0),
        patients=None,
        operator="not-needed",
    )


def hospital_rules(profile: StationProfile, now: datetime) -> HospitalRules:
    """Return a hospital's rules as its profile tells them.

    Raises:
        DocumentError: its hours are none.
    """
    try:
        quiet = in_quiet_hours(profile.quiet_hours, ZoneInfo(profile.timezone), now)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise DocumentError(
            f"the profile of {profile.station} has quiet hours that are no hours, or no time zone"
        ) from error
    return HospitalRules(
        station=profile.station,
        collections={
            offered.name: CollectionOffer(
                offered.marking,
                offered.consent_mode,
                frozenset(offered.requester_classes),
                frozenset(offered.purposes),
                frozenset(offered.countries),
            )
            for offered in profile.collections
        },
        memory_mib=profile.ceilings.memory_mib,
        cpus=profile.ceilings.cpus,
        consent_limit=timedelta(days=profile.consent_max_age_days),
        quiet=quiet,
        gpu_memory_mib=profile.gpu_memory_mib,
    )


def _with_any_gpu(rules: HospitalRules) -> HospitalRules:
    return rules if rules.gpu_memory_mib is not None else replace(rules, gpu_memory_mib=(_ANY_GPU_MIB,))


@dataclass(frozen=True, slots=True)
class PatientBounds:
    """What the told counts say of the patients in the collections that are open to the train.

    Attributes:
        told: the sum of the rounded counts.
        most: the largest number that could have stood behind them; None where a count is too small to be told.
    """

    told: int
    most: int | None


def patient_bounds(facts: Facts, profile: StationProfile) -> PatientBounds:
    """Bound the patients of one station from above.

    There is no bound from below: only the station knows how many of them agreed, and have such images and fields. A count of
    0 is also told where there are too few to say, so it bounds nothing.
    """
    opened = open_collections(facts)
    counts = [offered.counts for offered in profile.collections if offered.name in opened]
    told = [each.patients for each in counts]
    most = sum(told) + ROUNDING * len(told) if told and all(told) else None
    return PatientBounds(sum(told), most)


def widest_order(question: Question, manifest: TrainManifest, stations: Iterable[str]) -> RunOrder:
    """Return the largest order that the policy permits, for these stations and, if they are too few, for others."""
    policy = question.policy
    names = sorted(set(stations))
    # Which others, no profile says; that they stand in the register is assumed, and counted elsewhere.
    names += [
        f"station-not-known-{number}" for number in range(1, policy.runs.minimum_stations - len(names) + 1)
    ]
    strategy = _strategy(policy)
    stages = {
        TrainKind.TRAINING: ["train", "evaluate"],
        TrainKind.EVALUATION: ["evaluate"],
        TrainKind.ANALYSIS: ["analyse"],
    }[policy.kind]
    images = [image.config_digest for image in manifest.images]
    digest = next(
        (each for each in policy.image_config_digests if each in images), policy.image_config_digests[0]
    )
    ends = min(policy.valid_until, question.now + _DAY)
    order = {
        "schema_version": 1,
        "order_id": _ANY,
        "nonce": _ANY,
        "policy_id": policy.id,
        "policy_version": policy.version,
        "policy_digest": question.policy_digest,
        "manifest_digest": policy.manifest_digest,
        "image_config_digest": digest,
        "hyperparameters": _proximal(policy),
        "initial_weights": None if "analyse" in stages else {"digest": policy.manifest_digest, "size": 0},
        "stations": names,
        "rounds": policy.runs.rounds,
        # With an evaluation after each round an order may take more releases than the policy has.
        "stages": stages if len(stages) * policy.runs.rounds <= policy.runs.releases else stages[:1],
        "strategy": {"name": strategy.name, "parameters": strategy.parameters},
        "minimum_stations": policy.runs.minimum_stations,
        "issued": format_moment(question.now),
        "expires": format_moment(max(ends, question.now + timedelta(seconds=1))),
    }
    return RunOrder.model_validate_json(canonical_json(order))


def _strategy(policy: Policy) -> StrategyChoice:
    """The policy's first strategy, with the parameters of its ranges' ends with which it takes the fewest stations."""
    name = policy.runs.strategies[0]
    ranges = policy.runs.strategy_parameters.get(name, {})
    return StrategyChoice(name=name, parameters=mildest(name, ranges))


def _proximal(policy: Policy) -> dict[str, object]:
    spec = policy.runs.hyperparameters.get(PROXIMAL_MU)
    return {PROXIMAL_MU: spec.maximum} if policy.runs.strategies[0] == "FedProx" and spec is not None else {}


def _modest_train(policy: Policy) -> TrainManifest:
    """Return a train that asks for as little as a train can, where none was given."""
    manifest = {
        "schema_version": 1,
        "name": "not-known",
        "version": "0.0.0",
        "title": "not known",
        "kind": policy.kind,
        "interface": "flower",
        "data": {
            "modalities": [policy.data.modalities[0]],
            "profile": "not-known@0",
            "representation": policy.data.representations[0],
        },
        # What the policy grants an order to choose, the train that is meant has.
        "hyperparameters": {
            name: spec.model_dump(mode="json") for name, spec in policy.runs.hyperparameters.items()
        },
        "outputs": {"tensors": {"layout": "same-as-input"} if policy.kind is TrainKind.TRAINING else None},
        "resources": {"memory_mib": 64, "cpus": 0.01},
        "contact": {"name": "not known", "organisation": "not known", "email": "not@known"},
        "licence": "not known",
        "source_commit": "unversioned",
        "images": [{"variant": "cpu", "config_digest": digest} for digest in policy.image_config_digests],
    }
    return TrainManifest.model_validate_json(canonical_json(manifest))


def _register(question: Question, names: Iterable[str]) -> StationRegister:
    """Return the board's register; where none was given, or for stations that are assumed, one in which they stand."""
    policy, known = question.policy, question.register
    entries = list(known.stations) if known is not None else []
    there = {entry.name for entry in entries}
    for name in sorted(names):
        if name not in there and (known is None or name.startswith("station-not-known-")):
            assumed = {
                "name": name,
                "organisation": "not known",
                "country": "NL",
                "identity_key": "0" * 64,
                "node_key": "ecdsa-sha2-nistp256 AAAA",
                "agreement": {"reference": "not known", "expires": "9999-12-31"},
            }
            entries.append(RegisteredStation.model_validate_json(canonical_json(assumed)))
    return StationRegister(schema_version=1, board=policy.board, version=1, stations=tuple(entries))


def _permitting(policy: Policy) -> PurposeTable:
    rule = {
        "purpose": policy.purpose.code,
        "requester_class": policy.requester.requester_class,
        "consents": list(policy.data.consent_purposes),
    }
    table = {"schema_version": 1, "board": policy.board, "version": 1, "rules": [rule]}
    return PurposeTable.model_validate_json(canonical_json(table))
