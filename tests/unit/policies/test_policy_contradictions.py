"""What cannot hold together is refused when it is written: policies, manifests, orders, charters, registers."""

from collections.abc import Mapping

import pytest
import yaml
from board_kit import PURPOSES, BoardKit, example_policy, register_yaml

from policies.charter import Charter, StationRegister
from policies.documents import StrictModel, load_yaml
from policies.errors import DocumentError
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import Policy
from policies.purposes import PurposeTable

NOISE = {"noise_multiplier": 30.0, "epsilon": 8.0, "delta": 0.00001}
PRIVATE = {
    "release.differential_privacy": NOISE,
    "release.tensors": {"clipping_norm": 1.0, "float_buffers": "withhold"},
    "release.timing_quantum_s": 60.0,
}


def complaint(model: type[StrictModel], data: bytes) -> str:
    with pytest.raises(DocumentError) as error:
        load_yaml(model, data, what="document")
    return error.value.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"valid_until": "2020-01-01T00:00:00Z"}, "valid_until must come after valid_from"),
        ({"legal.agreement": {"reference": "x", "expires": "2026-12-01"}}, "the agreement"),
        ({"runs.minimum_stations": 2}, "training with fewer than 3 stations needs differential_privacy"),
        ({"release.tensors": None}, "release.tensors is set for training policies"),
        ({"kind": "evaluation", "runs.strategies": ["none"]}, "release.tensors is set for training policies"),
        ({"runs.strategies": ["none"]}, "training needs an aggregation strategy"),
        (
            {"resources.gpu": False, "resources.cpu_fallback": True},
            "resources.cpu_fallback says what to do without a GPU",
        ),
        (
            {"kind": "analysis", "release.tensors": None, "release.membership_limit": 0.7},
            "release.membership_limit is of updates",
        ),
        (
            {"kind": "analysis", "release.tensors": None, "release.trust_statement": None},
            "evaluation and analysis take the strategy 'none'",
        ),
        ({"requester.requester_class": "commercial"}, "commercial_use_approved: true"),
        (
            {"requester.requester_class": "commercial", "commercial_use_approved": True},
            "the consent purpose research-commercial",
        ),
        ({"release.trust_statement": None}, "trust_statement must say whom that leaves to trust"),
        ({"release.differential_privacy": NOISE}, "noise needs a clipping_norm"),
        (
            {"release.differential_privacy": NOISE, "release.tensors": {"clipping_norm": 1.0}},
            "differential_privacy keeps buffers at the station",
        ),
        ({**PRIVATE, "release.timing_quantum_s": 0.0}, "blurs numbers, not moments"),
        (
            {**PRIVATE, "release.differential_privacy": {**NOISE, "noise_multiplier": 1.0}},
            "epsilon is smaller than what one run of runs.rounds rounds costs",
        ),
        (
            {**PRIVATE, "release.differential_privacy": {**NOISE, "delta": 0.5}},
            "delta must be below one by data.minimum_patients",
        ),
        (
            {
                "kind": "analysis",
                "runs.strategies": ["none"],
                "release.tensors": None,
                "release.trust_statement": None,
                "release.metrics": [],
                "release.tables": [],
                "release.timing_quantum_s": 60.0,
                "release.differential_privacy": NOISE,
            },
            "blurs numbers, and release permits none",
        ),
        ({"runs.releases": 3}, "runs.releases is smaller"),
        # Twenty rounds of two stages, and the hello: 41 quanta do not fit into 40.
        (
            {"runs.rounds": 20, "release.timing_quantum_s": 90.0, "resources.run_hours": 1.0},
            "release.timing_quantum_s is too long for resources.run_hours",
        ),
        (
            {**PRIVATE, "runs.rounds": 20, "resources.run_hours": 1.0},
            "release.timing_quantum_s is too long for resources.run_hours",
        ),
        (
            {
                "kind": "evaluation",
                "runs.strategies": ["none"],
                "release.tensors": None,
                "release.secure_aggregation": True,
            },
            "needs it singly",
        ),
        (
            {
                **PRIVATE,
                "release.secure_aggregation": True,
            },
            "release.trust_statement says what secure aggregation and noise rule out",
        ),
        ({"legal.gdpr_article_6": "6(1)(a)"}, "6(1)(a) is consent"),
        ({"legal.gdpr_article_9": "9(2)(a)"}, "9(2)(a) is explicit consent"),
        ({"image_config_digests": []}, "image_config_digests"),
        ({"data.collections": []}, "data.collections"),
        ({"data.consent_purposes": []}, "data.consent_purposes"),
        ({"data.consent_modes": []}, "data.consent_modes"),
        ({"elsi": []}, "elsi"),
        ({"more": 1}, "more is not a known key"),
        ({"release.metrics": ["A"]}, "release.metrics.0"),
        ({"version": 0}, "version"),
        ({"requester.key": "ab"}, "requester.key"),
    ],
)
def test_a_policy_that_contradicts_itself(changes: Mapping[str, object], said: str) -> None:
    assert said in complaint(Policy, example_policy(changes))


def test_all_contradictions_are_named_at_once() -> None:
    message = complaint(Policy, example_policy({"runs.minimum_stations": 2, "runs.releases": 3}))
    assert "fewer than 3 stations" in message
    assert "runs.releases" in message


def test_two_stations_may_train_in_development_or_with_noise() -> None:
    load_yaml(Policy, example_policy({"runs.minimum_stations": 2, "role": "development"}), what="policy")
    load_yaml(Policy, example_policy({"runs.minimum_stations": 2, **PRIVATE}), what="policy")


def test_an_analysis_may_have_noise_without_a_clipping_norm() -> None:
    changes = {
        **PRIVATE,
        "kind": "analysis",
        "runs.strategies": ["none"],
        "release.tensors": None,
        "release.trust_statement": None,
        "release.metrics": ["loss"],
    }
    load_yaml(Policy, example_policy(changes), what="policy")


MANIFEST = {
    "schema_version": 1,
    "name": "train",
    "version": "1.0.0",
    "title": "A train",
    "kind": "training",
    "interface": "flower",
    "data": {"modalities": ["DX"], "profile": "thorax-1@1"},
    "outputs": {
        "tensors": {"layout": "same-as-input"},
        "metrics": [{"key": "loss", "stage": "train", "minimum": 0, "maximum": 1, "split": "training"}],
    },
    "resources": {"memory_mib": 256, "cpus": 1},
    "contact": {"name": "A", "organisation": "B", "email": "a@b.nl"},
    "licence": "Apache-2.0",
    "source_commit": "unversioned",
}
METRIC = MANIFEST["outputs"]["metrics"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "evaluation"}, "an evaluation train returns no tensors"),
        ({"outputs": {}}, "a training train declares its tensors"),
        ({"outputs": {"tensors": {"layout": "listed"}}}, "'listed' names its tensors"),
        (
            {"outputs": {"tensors": {"layout": "same-as-input"}, "metrics": [METRIC, dict(METRIC)]}},
            "names an output twice",
        ),
        (
            {"outputs": {"tensors": {"layout": "same-as-input"}, "metrics": [METRIC | {"maximum": 0}]}},
            "minimum must be below maximum",
        ),
        (
            {"outputs": {"tensors": {"layout": "same-as-input"}, "metrics": [METRIC | {"split": "testing"}]}},
            "no testing cases",
        ),
        ({"hyperparameters": {"lr": {"type": "float", "default": 1.0}}}, "needs both minimum and maximum"),
        (
            {"hyperparameters": {"lr": {"type": "int", "minimum": 1, "maximum": 5, "default": 9}}},
            "default is above 5",
        ),
        ({"version": "1.0"}, "version"),
        ({"error_codes": [f"E{n}" for n in range(33)]}, "error_codes"),
        ({"contact": {"name": "A", "organisation": "B", "email": "nobody"}}, "contact.email"),
    ],
)
def test_a_manifest_that_contradicts_itself(changes: dict[str, object], said: str) -> None:
    load_yaml(TrainManifest, yaml.safe_dump(MANIFEST).encode(), what="document")
    assert said in complaint(TrainManifest, yaml.safe_dump(MANIFEST | changes).encode())


ORDER = {
    "schema_version": 1,
    "order_id": "0" * 32,
    "policy_id": "policy",
    "policy_version": 1,
    "policy_digest": "sha256:" + "0" * 64,
    "manifest_digest": "sha256:" + "0" * 64,
    "image_config_digest": "sha256:" + "0" * 64,
    "hyperparameters": {"lr": 0.1, "augment": True},
    "initial_weights": {"digest": "sha256:" + "0" * 64, "size": 1},
    "stations": ["a", "b", "c"],
    "rounds": 5,
    "stages": ["train", "evaluate"],
    "strategy": {"name": "FedAvg"},
    "minimum_stations": 3,
    "nonce": "1" * 32,
    "issued": "2026-01-01T00:00:00Z",
    "expires": "2026-01-02T00:00:00Z",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expires": "2026-01-01T00:00:00Z"}, "expires must come after issued"),
        ({"stations": ["a", "b", "a"]}, "names a station twice"),
        ({"minimum_stations": 4}, "asks for more stations than it names"),
        ({"stages": ["evaluate", "train"]}, "stages must be"),
        ({"stages": ["analyse", "train"]}, "stages must be"),
        ({"initial_weights": None}, "start from initial_weights"),
        ({"order_id": "x"}, "order_id"),
        ({"stations": []}, "stations"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_an_order_that_contradicts_itself(changes: dict[str, object], said: str) -> None:
    load_yaml(RunOrder, yaml.safe_dump(ORDER).encode(), what="document")
    assert said in complaint(RunOrder, yaml.safe_dump(ORDER | changes).encode())


def test_a_table_of_purposes_that_contradicts_itself() -> None:
    whole = yaml.safe_load(PURPOSES.read_text("utf-8"))
    load_yaml(PurposeTable, yaml.safe_dump(whole).encode(), what="purposes")
    first = whole["rules"][0]
    for changes, said in (
        ({"rules": [first, first | {"consents": ["research-commercial"]}]}, "twice"),
        ({"rules": []}, "rules"),
        ({"rules": [first | {"consents": []}]}, "consents"),
        ({"rules": [first | {"purpose": "anything"}]}, "purpose"),
        ({"version": 0}, "version"),
    ):
        assert said in complaint(PurposeTable, yaml.safe_dump(whole | changes).encode())


def test_a_charter_that_contradicts_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    board = BoardKit.found(tmp_path_factory.mktemp("board"))
    whole = board.charter.model_dump(mode="json")
    load_yaml(Charter, yaml.safe_dump(whole).encode(), what="charter")
    members = whole["members"]
    for changes, said in (
        ({"threshold": 4}, "the threshold is higher than the number of members"),
        ({"threshold": 0}, "threshold"),
        ({"members": [*members, dict(members[0])]}, "two members share a key"),
        ({"members": [*members, dict(members[0]) | {"key": "ab" * 32}]}, "two members share a name"),
        ({"required_roles": ["ethicist"]}, "no member holds the required role ethicist"),
        ({"members": []}, "members"),
    ):
        assert said in complaint(Charter, yaml.safe_dump(whole | changes).encode())


def test_a_register_that_contradicts_itself() -> None:
    load_yaml(StationRegister, register_yaml(), what="register")
    assert "names a station twice" in complaint(StationRegister, register_yaml(1, "amstel", "amstel"))
    assert "node_key" in complaint(
        StationRegister, register_yaml().replace(b"ecdsa-sha2-nistp384", b"ssh-rsa")
    )
