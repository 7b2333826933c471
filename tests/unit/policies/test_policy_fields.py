"""Every field of a policy that a rule enforces: a run that fits is admitted, a run beyond the field is refused.

The table in `policies/README.md` names this file; `test_policies_readme.py` holds the table to the model.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from board_kit import NOW, PURPOSES, example_policy, register_yaml

from policies.charter import StationRegister
from policies.documents import load_yaml, load_yaml_file
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import ConsentMode, Policy, PurposeCode, RequesterClass
from policies.purposes import PurposeTable
from policies.refusals import Permitted, RefusalCode, Refused
from policies.rules.admission import CollectionOffer, Facts, HospitalRules, Usage, decide, explain
from policies.rules.privacy_rules import Shortage

IMAGE, TRAIN, POLICY = ("sha256:" + digit * 64 for digit in "123")
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "train",
    "version": "1.0.0",
    "title": "A train",
    "kind": "training",
    "interface": "flower",
    "data": {"modalities": ["DX"], "profile": "thorax-1@1", "label": "pneumonia"},
    "hyperparameters": {"lr": {"type": "float", "minimum": 0.0, "maximum": 1.0, "default": 0.1}},
    "outputs": {"tensors": {"layout": "same-as-input"}},
    "resources": {"memory_mib": 2048, "cpus": 1.0},
    "contact": {"name": "A", "organisation": "B", "email": "a@b.nl"},
    "licence": "Apache-2.0",
    "source_commit": "unversioned",
    "images": [{"variant": "cpu", "config_digest": IMAGE}],
}
FITTING = {
    "id": "study",
    "manifest_digest": TRAIN,
    "image_config_digests": [IMAGE],
    "runs.hyperparameters": {"lr": {"type": "float", "minimum": 0.001, "maximum": 0.5, "default": 0.1}},
}
ORDER: dict[str, Any] = {
    "schema_version": 1,
    "order_id": "0" * 32,
    "policy_id": "study",
    "policy_version": 1,
    "policy_digest": POLICY,
    "manifest_digest": TRAIN,
    "image_config_digest": IMAGE,
    "hyperparameters": {"lr": 0.1},
    "initial_weights": {"digest": IMAGE, "size": 10},
    "stations": ["amstel", "berkel", "dommel"],
    "rounds": 5,
    "stages": ["train", "evaluate"],
    "strategy": {"name": "FedAvg"},
    "minimum_stations": 3,
    "nonce": "1" * 32,
    "issued": "2026-11-22T11:00:00Z",
    "expires": "2026-11-23T12:00:00Z",
}
OFFER = CollectionOffer(
    marking="patient",
    consent_mode=ConsentMode.OPT_OUT,
    requester_classes=frozenset({RequesterClass.PARTICIPANT}),
    purposes=frozenset({PurposeCode.METHOD_DEVELOPMENT}),
    countries=frozenset({"NL"}),
)


def document(changes: Mapping[str, object]) -> bytes:
    return yaml.safe_dump(dict(changes)).encode()


def facts(
    policy: Mapping[str, object] | None = None,
    order: Mapping[str, object] | None = None,
    manifest: Mapping[str, object] | None = None,
    **others: Any,
) -> Facts:
    """A run that fits in every way, but for the changes given."""
    fitting = Facts(
        now=NOW,
        order=load_yaml(RunOrder, document(ORDER | dict(order or {})), what="order"),
        policy=load_yaml(Policy, example_policy({**FITTING, **(policy or {})}), what="policy"),
        policy_digest=POLICY,
        manifest=load_yaml(TrainManifest, document(MANIFEST | dict(manifest or {})), what="manifest"),
        register=load_yaml(StationRegister, register_yaml(1, "amstel", "berkel", "dommel"), what="register"),
        purposes=load_yaml_file(PurposeTable, PURPOSES),
        revoked_stations=frozenset(),
        hospital=HospitalRules(
            station="amstel",
            collections={"thorax-cxr": OFFER},
            memory_mib=8192,
            cpus=4.0,
            consent_limit=timedelta(days=7),
            quiet=False,
        ),
        usage=Usage(runs=0, releases=0, releases_of_order=0, order_finished=False),
        consent_age=timedelta(days=1),
        patients=100,
        operator="approved",
    )
    return replace(fitting, **others)


def test_a_run_that_fits_is_admitted() -> None:
    admitted = decide(facts())
    assert isinstance(admitted, Permitted), admitted
    assert admitted.value.collections == ("thorax-cxr",)
    assert all(not verdict.reasons for verdict in explain(facts()))
    assert isinstance(decide(facts(NOISE, privacy=Shortage(0, 0, 100))), Permitted)


NOISE = {
    "release.differential_privacy": {"noise_multiplier": 50.0, "epsilon": 3.0, "delta": 0.00001},
    "release.tensors": {"clipping_norm": 1.0, "float_buffers": "withhold"},
    "release.timing_quantum_s": 60.0,
}
CASES: dict[str, tuple[Facts, RefusalCode]] = {
    "id": (facts({"id": "other"}), RefusalCode.POLICY_DIGEST),
    "version": (facts({"version": 2}), RefusalCode.POLICY_DIGEST),
    "kind": (facts(order={"stages": ["evaluate"]}), RefusalCode.ORDER_KIND),
    "role": (
        facts({"role": "development"}),
        RefusalCode.HOSPITAL_COLLECTION,
    ),
    "manifest_digest": (facts({"manifest_digest": IMAGE}), RefusalCode.MANIFEST_DIGEST),
    "image_config_digests": (facts({"image_config_digests": [TRAIN]}), RefusalCode.IMAGE_DIGEST),
    "requester.requester_class": (
        facts({"requester.requester_class": "non-profit"}),
        RefusalCode.HOSPITAL_REQUESTER_CLASS,
    ),
    "requester.country": (facts({"requester.country": "DE"}), RefusalCode.HOSPITAL_COUNTRY),
    "purpose.code": (facts({"purpose.code": "health-research"}), RefusalCode.HOSPITAL_PURPOSE),
    "data.collections": (facts({"data.collections": ["other"]}), RefusalCode.HOSPITAL_COLLECTION),
    "data.consent_purposes": (
        facts({"data.consent_purposes": ["research-third-parties"]}),
        RefusalCode.PURPOSE_CONSENTS_TOO_FEW,
    ),
    "data.consent_modes": (facts({"data.consent_modes": ["opt-in"]}), RefusalCode.HOSPITAL_COLLECTION),
    "data.modalities": (facts({"data.modalities": ["CT"]}), RefusalCode.DATA_MODALITY),
    "data.clinical_fields": (facts({"data.clinical_fields": []}), RefusalCode.DATA_FIELDS),
    "data.masks": (
        facts(manifest={"data": dict(MANIFEST["data"]) | {"masks": ["lesion"]}}),
        RefusalCode.DATA_FIELDS,
    ),
    "data.representations": (
        facts(manifest={"data": dict(MANIFEST["data"]) | {"representation": "dicom"}}),
        RefusalCode.DATA_FIELDS,
    ),
    "data.minimum_patients": (facts({"data.minimum_patients": 101}), RefusalCode.DATA_TOO_FEW_PATIENTS),
    "runs.minimum_stations": (facts({"runs.minimum_stations": 4}), RefusalCode.ORDER_BEYOND_POLICY),
    "runs.runs": (
        facts(usage=Usage(runs=5, releases=0, releases_of_order=0, order_finished=False)),
        RefusalCode.BUDGET_RUNS,
    ),
    "runs.rounds": (facts({"runs.rounds": 4}), RefusalCode.ORDER_BEYOND_POLICY),
    "runs.releases": (
        facts(usage=Usage(runs=0, releases=195, releases_of_order=0, order_finished=False)),
        RefusalCode.BUDGET_RELEASES,
    ),
    "runs.hyperparameters": (facts(order={"hyperparameters": {"lr": 0.6}}), RefusalCode.ORDER_CONFIG),
    "runs.strategies": (facts(order={"strategy": {"name": "none"}}), RefusalCode.ORDER_BEYOND_POLICY),
    "runs.strategy_parameters": (
        facts(
            {
                "runs.strategies": ["FedAvgM"],
                "runs.strategy_parameters": {
                    "FedAvgM": {"server_momentum": {"minimum": 0.1, "maximum": 0.5}}
                },
            },
            order={"strategy": {"name": "FedAvgM", "parameters": {"server_momentum": 0.9}}},
        ),
        RefusalCode.ORDER_BEYOND_POLICY,
    ),
    "release.differential_privacy": (
        facts(NOISE, privacy=Shortage(of_policy=1, of_hospital=0, patients=100)),
        RefusalCode.BUDGET_PRIVACY,
    ),
    "release.secure_aggregation": (
        facts({"release.secure_aggregation": True}),
        RefusalCode.SECURE_AGGREGATION_UNSUPPORTED,
    ),
    "resources.memory_mib": (facts({"resources.memory_mib": 1024}), RefusalCode.HOSPITAL_RESOURCES),
    "resources.cpus": (facts({"resources.cpus": 0.5}), RefusalCode.HOSPITAL_RESOURCES),
    "valid_from": (facts(now=NOW - timedelta(days=2)), RefusalCode.POLICY_NOT_YET_VALID),
    "valid_until": (facts({"valid_until": "2026-11-22T12:00:00Z"}), RefusalCode.POLICY_EXPIRED),
}


@pytest.mark.parametrize("field", CASES)
def test_a_run_beyond_a_field_is_refused(field: str) -> None:
    tried, code = CASES[field]
    refused = decide(tried)
    assert isinstance(refused, Refused)
    assert code in {reason.code for reason in refused.reasons}


OTHER_FACTS: dict[str, tuple[Facts, RefusalCode]] = {
    "no consent source": (facts(consent_age=None), RefusalCode.CONSENT_UNKNOWN),
    "an old consent source": (facts(consent_age=timedelta(days=8)), RefusalCode.CONSENT_STALE),
    "quiet hours": (
        facts(hospital=replace(facts().hospital, quiet=True)),
        RefusalCode.HOSPITAL_QUIET_HOURS,
    ),
    "too much for the hospital": (
        facts(hospital=replace(facts().hospital, memory_mib=1024)),
        RefusalCode.HOSPITAL_RESOURCES,
    ),
    "nothing offered": (
        facts(hospital=replace(facts().hospital, collections={})),
        RefusalCode.HOSPITAL_COLLECTION,
    ),
    "the operator waits": (facts(operator="pending"), RefusalCode.OPERATOR_PENDING),
    "the operator holds": (facts(operator="held"), RefusalCode.HOSPITAL_HELD),
    "an order used before": (
        facts(usage=Usage(runs=0, releases=0, releases_of_order=0, order_finished=True)),
        RefusalCode.ORDER_SPENT,
    ),
    "an order past its expiry": (facts(now=NOW + timedelta(days=2)), RefusalCode.ORDER_EXPIRED),
    "an order of tomorrow": (
        facts(order={"issued": "2026-11-22T13:00:00Z"}),
        RefusalCode.ORDER_NOT_YET_VALID,
    ),
    "an order without us": (
        facts(order={"stations": ["berkel", "dommel", "rijn"]}),
        RefusalCode.ORDER_STATION,
    ),
    "a stranger among the peers": (
        facts(order={"stations": ["amstel", "berkel", "rijn"]}),
        RefusalCode.STATION_NOT_REGISTERED,
    ),
    "another policy's bytes": (facts(policy_digest=TRAIN), RefusalCode.POLICY_DIGEST),
    "an image the manifest lacks": (facts(manifest={"images": []}), RefusalCode.IMAGE_DIGEST),
    "an unknown hyperparameter": (
        facts(order={"hyperparameters": {"lr": 0.1, "secret": 1}}),
        RefusalCode.ORDER_CONFIG,
    ),
}


@pytest.mark.parametrize("fact", OTHER_FACTS)
def test_what_stands_outside_the_policy_refuses_too(fact: str) -> None:
    tried, code = OTHER_FACTS[fact]
    refused = decide(tried)
    assert isinstance(refused, Refused)
    assert code in {reason.code for reason in refused.reasons}


def test_the_agreement_ends_before_a_policy_that_was_signed_longer() -> None:
    fitting = facts()
    legal = fitting.policy.legal
    ended = legal.agreement.model_copy(update={"expires": (NOW - timedelta(days=1)).date()})
    policy = fitting.policy.model_copy(update={"legal": legal.model_copy(update={"agreement": ended})})
    refused = decide(replace(fitting, policy=policy))
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.AGREEMENT_EXPIRED
