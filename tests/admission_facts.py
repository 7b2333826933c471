"""An order that every rule permits, with the documents around it; each test changes what it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import yaml
from board_kit import NOW, PURPOSES, example_policy, register_yaml
from station_kit import IMAGE, MANIFEST, POLICY, STATION, STATIONS

from policies.charter import StationRegister
from policies.documents import canonical_json, digest_of, format_moment, load_yaml, load_yaml_file
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import ConsentMode, Policy, PurposeCode, RequesterClass
from policies.purposes import PurposeTable
from policies.rules.admission import CollectionOffer, Facts, HospitalRules, Usage

COLLECTION = "chest-radiographs"
OFFER = CollectionOffer(
    marking="patient",
    consent_mode=ConsentMode.OPT_OUT,
    requester_classes=frozenset(RequesterClass),
    purposes=frozenset(PurposeCode),
    countries=frozenset({"NL"}),
)
PURPOSE_TABLE = load_yaml_file(PurposeTable, PURPOSES)
HOSPITAL = HospitalRules(
    station=STATION,
    collections={COLLECTION: OFFER},
    memory_mib=1024,
    cpus=2.0,
    consent_limit=timedelta(days=30),
    quiet=False,
)


def policy_bytes(changes: Mapping[str, object] | None = None) -> bytes:
    """The policy file; changes by dotted path."""
    return example_policy({**POLICY, **(changes or {})})


def policy(changes: Mapping[str, object] | None = None) -> Policy:
    return load_yaml(Policy, policy_bytes(changes), what="policy")


def manifest(changes: Mapping[str, object] | None = None) -> TrainManifest:
    """The manifest; changes by dotted path."""
    document = yaml.safe_load(MANIFEST)
    for path, value in (changes or {}).items():
        *folders, last = path.split(".")
        place = document
        for name in folders:
            place = place[name]
        place[last] = value
    return load_yaml(TrainManifest, yaml.safe_dump(document).encode(), what="train.yaml")


def order(policy_digest: str | None = None, **changes: Any) -> RunOrder:
    """The order; keywords replace its fields."""
    fields: dict[str, Any] = {
        "schema_version": 1,
        "order_id": "1" * 32,
        "policy_id": "cxr-classification",
        "policy_version": 1,
        "policy_digest": policy_digest or digest_of(policy_bytes()),
        "manifest_digest": digest_of(MANIFEST),
        "image_config_digest": IMAGE,
        "hyperparameters": {"rate": 1.0},
        "initial_weights": {"digest": "sha256:" + "7" * 64, "size": 10},
        "stations": list(STATIONS),
        "rounds": 2,
        "stages": ["train", "evaluate"],
        "strategy": {"name": "FedAvg", "parameters": {}},
        "minimum_stations": 3,
        "nonce": "1" * 32,
        "issued": format_moment(NOW - timedelta(hours=1)),
        "expires": format_moment(NOW + timedelta(days=1)),
    }
    return RunOrder.model_validate_json(canonical_json(fields | changes))


def register(
    *names: str, expires: str = "2099-12-31", who: str = "", policies: Sequence[str] | None = None
) -> StationRegister:
    """A register; the agreement of `who` expires, and covers policies, as told."""
    document = yaml.safe_load(register_yaml(1, *names))
    for station in document["stations"]:
        if station["name"] == who:
            station["agreement"]["expires"] = expires
            if policies is not None:
                station["agreement"]["policies"] = list(policies)
    return load_yaml(StationRegister, yaml.safe_dump(document).encode(), what="register")


def facts(**changes: Any) -> Facts:
    """Facts that permit; keywords replace some."""
    permitting = Facts(
        now=NOW,
        order=order(),
        policy=policy(),
        policy_digest=digest_of(policy_bytes()),
        manifest=manifest(),
        register=register(*STATIONS),
        purposes=PURPOSE_TABLE,
        revoked_stations=frozenset(),
        hospital=HOSPITAL,
        usage=Usage(runs=0, releases=0, releases_of_order=0, order_finished=False),
        consent_age=timedelta(days=1),
        patients=40,
        operator="not-needed",
    )
    return replace(permitting, **changes)


def facts_under(changes: Mapping[str, object], **others: Any) -> Facts:
    """Facts under a changed policy, with an order that names its bytes."""
    digest = digest_of(policy_bytes(changes))
    named = {"order": order(digest), **others}
    return facts(policy=policy(changes), policy_digest=digest, **named)
