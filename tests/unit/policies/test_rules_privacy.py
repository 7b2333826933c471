"""What a run with noise costs each patient, and when that refuses it."""

from typing import Any

import pytest
from admission_facts import facts_under

from policies.manifest import TrainManifest
from policies.privacy import NOTHING, Spent, epsilon
from policies.refusals import RefusalCode
from policies.rules.admission import Facts
from policies.rules.privacy_rules import Shortage, cost_of_run, cost_to_come, granted, privacy_reasons

NOISE = {"noise_multiplier": 50.0, "epsilon": 1.0, "delta": 1e-6}
NOISY = {
    "release.tensors.clipping_norm": 1.0,
    "release.tensors.float_buffers": "withhold",
    "release.timing_quantum_s": 60.0,
    "release.differential_privacy": NOISE,
}


def asked(**noise: Any) -> Facts:
    """An order of two rounds of training and evaluation; the update and a figure of each stage are blurred."""
    facts = facts_under(NOISY)
    privacy = facts.policy.release.differential_privacy
    assert privacy is not None
    release = facts.policy.release.model_copy(
        update={"differential_privacy": privacy.model_copy(update=noise)}
    )
    return Facts(**{**_fields(facts), "policy": facts.policy.model_copy(update={"release": release})})


def _fields(facts: Facts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in Facts.__dataclass_fields__}


def reasons(facts: Facts, short: Shortage | None = None) -> list[RefusalCode]:
    return [reason.code for reason in privacy_reasons(facts.order, facts.policy, facts.manifest, short)]


def test_a_run_costs_every_number_of_every_round() -> None:
    facts = asked()
    assert (facts.order.rounds, facts.order.stages) == (2, ("train", "evaluate"))
    assert cost_of_run(facts.order, facts.policy, facts.manifest) == Spent.of(50.0, 2 * 3)


def test_what_must_be_left_is_the_whole_run_and_of_one_under_way_the_next_release() -> None:
    facts = asked()
    run = (facts.order, facts.policy, facts.manifest)
    assert cost_to_come(*run, 0, begun=False) == Spent.of(50.0, 6)
    assert cost_to_come(*run, 1, begun=True) == Spent.of(50.0, 1)
    assert cost_to_come(*run, 4, begun=True) == NOTHING


def test_without_noise_nothing_is_charged_and_nothing_refused() -> None:
    facts = facts_under({})
    assert cost_of_run(facts.order, facts.policy, facts.manifest) == NOTHING
    assert reasons(facts, Shortage(70, 70, 70)) == []


@pytest.mark.parametrize(
    ("noise", "fits"),
    [({}, True), ({"noise_multiplier": 5.0}, False), ({"epsilon": 0.1}, False), ({"delta": 1e-300}, False)],
    ids=["as it is", "less noise", "a smaller epsilon", "a smaller delta"],
)
def test_a_run_that_no_patient_could_be_charged_for_is_refused(noise: dict[str, float], fits: bool) -> None:
    assert reasons(asked(**noise)) == ([] if fits else [RefusalCode.BUDGET_PRIVACY])


@pytest.mark.parametrize("short", [Shortage(1, 0, 70), Shortage(0, 1, 70)])
def test_one_patient_who_is_short_refuses_it_and_only_the_hospital_reads_how_many(short: Shortage) -> None:
    facts = asked()
    [reason] = privacy_reasons(facts.order, facts.policy, facts.manifest, short)
    assert reason.code is RefusalCode.BUDGET_PRIVACY
    assert reason.detail.startswith(f"of 70 patients {short.of_policy} have less left")
    assert reasons(facts, Shortage(0, 0, 70)) == []


def test_what_a_policy_grants_is_within_its_epsilon_to_the_last_unit() -> None:
    privacy = asked().policy.release.differential_privacy
    assert privacy is not None
    most = granted(privacy)
    assert epsilon(most, privacy.delta) <= privacy.epsilon < epsilon(most + Spent(1 << 20), privacy.delta)


def test_rows_that_a_program_writes_who_sees_everybody_cannot_be_blurred() -> None:
    facts = asked()
    table = {
        "key": "findings",
        "column": "finding",
        "split": "training",
        "minimum_cell_count": 10,
    }
    rows = {"columns": [{"name": "finding", "type": "category", "categories": ["a", "b"]}]}
    document = facts.manifest.model_dump(mode="json")
    document["kind"], document["hyperparameters"] = "analysis", {}
    document["outputs"] = {"rows": rows, "aggregates": [table], "metrics": []}
    alone = TrainManifest.model_validate_json(_json({**document, "interface": "map"}))
    everybody = alone.model_copy(update={"interface": type(alone.interface)("flower")})
    release = facts.policy.release.model_copy(
        update={"tables": ("findings",), "tensors": None, "metrics": ()}
    )
    policy = facts.policy.model_copy(update={"release": release})
    assert privacy_reasons(facts.order, policy, alone, None) == []
    [reason] = privacy_reasons(facts.order, policy, everybody, None)
    assert reason.code is RefusalCode.RELEASE_NOT_PERMITTED


def _json(document: dict[str, Any]) -> str:
    from policies.documents import canonical_json

    return canonical_json(document).decode()
