"""Strategies in policies and orders: what may be granted, what may be chosen of it, and how it is said."""

from typing import Any

import pytest
from admission_facts import manifest, order, policy, policy_bytes
from board_kit import NOW, example_policy
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st

from policies.board.comparing.documents import changes_between
from policies.board.reviewing.review import review_policy
from policies.documents import digest_of, load_yaml
from policies.errors import DocumentError
from policies.policy import Policy
from policies.rules.order_rules import manifest_reasons, order_reasons
from policies.strategies import (
    STRATEGIES,
    ParameterRange,
    fewest_updates,
    parameter_problems,
    parameters_of,
    strategy_in_words,
)

DIGEST = digest_of(policy_bytes())
ALL = [name for name in STRATEGIES if name not in {"none", "FedProx"}]
MU = {"type": "float", "minimum": 0.0, "maximum": 1.0, "default": 0.1}
FEDPROX = {"runs.strategies": ["FedProx"], "runs.hyperparameters": {"proximal-mu": MU}}


def codes(strategy: dict[str, Any], changes: dict[str, Any] | None = None, **order_changes: Any) -> list[str]:
    asked = order(strategy=strategy, **order_changes)
    return [reason.code.value for reason in order_reasons(asked, policy(changes or {}), DIGEST, NOW)]


def complaint(changes: dict[str, Any]) -> str:
    with pytest.raises(DocumentError) as error:
        load_yaml(Policy, example_policy(changes), what="policy")
    return error.value.message


@pytest.mark.parametrize("name", ALL)
def test_a_strategy_is_chosen_where_it_is_granted_and_nowhere_else(name: str) -> None:
    seven = {"stations": [f"s{number}" for number in range(7)], "minimum_stations": 7}
    granted = {"runs.strategies": [name], "runs.minimum_stations": 7, "release.station_results": True}
    assert codes({"name": name}, granted, **seven) == []
    other = {"runs.strategies": ["FedAvgM" if name == "FedAvg" else "FedAvg"]}
    assert codes({"name": name}, other, **seven) == ["ORDER_BEYOND_POLICY"]


def test_names_and_defaults_are_flowers() -> None:
    for name, spec in STRATEGIES.items():
        if name in {"none", "FedProx"}:
            continue
        made = (flower.MultiKrum if name == "Krum" else getattr(flower, name))()
        assert {key: getattr(made, key) for key in spec.parameters} == parameters_of(name, {})


def test_a_parameter_keeps_its_default_unless_the_policy_has_a_range() -> None:
    granted: dict[str, Any] = {"runs.strategies": ["FedAdam"]}
    assert codes({"name": "FedAdam", "parameters": {"eta": 0.1}}, granted) == []
    assert codes({"name": "FedAdam", "parameters": {"eta": 0.2}}, granted) == ["ORDER_BEYOND_POLICY"]
    granted["runs.strategy_parameters"] = {"FedAdam": {"eta": {"minimum": 0.15, "maximum": 0.5}}}
    assert codes({"name": "FedAdam", "parameters": {"eta": 0.2}}, granted) == []
    assert codes({"name": "FedAdam", "parameters": {"eta": 0.51}}, granted) == ["ORDER_BEYOND_POLICY"]
    # The default is outside of the range, so leaving it out is outside too.
    assert codes({"name": "FedAdam"}, granted) == ["ORDER_BEYOND_POLICY"]


@pytest.mark.parametrize(
    "parameters", [{"eta_l": 0.1}, {"rate": 1.0}, {"beta_1": 1.0}, {"beta_1": True}, {"tau": float("inf")}]
)
def test_no_order_sets_what_a_strategy_does_not_have(parameters: dict[str, Any]) -> None:
    assert parameter_problems("FedAdam", parameters, {})


def test_whole_numbers_are_whole() -> None:
    ranges = {"num_malicious_nodes": ParameterRange(minimum=0, maximum=3)}
    assert not parameter_problems("Krum", {"num_malicious_nodes": 2}, ranges)
    assert parameter_problems("Krum", {"num_malicious_nodes": 2.0}, ranges)


def test_an_order_has_as_many_stations_as_its_strategy_takes() -> None:
    granted = {
        "runs.strategies": ["Krum"],
        "runs.strategy_parameters": {"Krum": {"num_malicious_nodes": {"minimum": 0, "maximum": 2}}},
        "release.station_results": True,
    }
    stations = [f"s{number}" for number in range(8)]
    for hostile, least in ((0, 3), (1, 5), (2, 7)):
        strategy = {"name": "Krum", "parameters": {"num_malicious_nodes": hostile}}
        assert codes(strategy, granted, stations=stations, minimum_stations=least) == []
        if least > 3:
            said = codes(strategy, granted, stations=stations, minimum_stations=least - 1)
            assert said == ["ORDER_STRATEGY"]


@given(st.floats(0.01, 0.49))
def test_a_trimmed_mean_of_the_fewest_cuts_one_and_leaves_one(beta: float) -> None:
    least = fewest_updates("FedTrimmedAvg", {"beta": beta})
    cut = int(beta * least)
    assert cut >= 1
    assert least - 2 * cut >= 1
    assert least == 3 or int(beta * (least - 1)) < 1


def test_fedprox_takes_a_train_and_an_order_with_proximal_mu() -> None:
    fedprox = {"name": "FedProx"}
    assert codes(fedprox, FEDPROX, hyperparameters={"proximal-mu": 0.5}) == []
    assert codes(fedprox, FEDPROX, hyperparameters={}) == ["ORDER_STRATEGY"]
    assert codes(fedprox, FEDPROX, hyperparameters={"proximal-mu": 0.0}) == ["ORDER_STRATEGY"]
    assert codes(fedprox, FEDPROX, hyperparameters={"proximal-mu": 1.5}) == ["ORDER_CONFIG"]
    asked = order(strategy=fedprox, hyperparameters={})
    assert [each.code for each in manifest_reasons(asked, manifest(), policy(FEDPROX))] == ["ORDER_STRATEGY"]
    declared = manifest({"hyperparameters": {"proximal-mu": MU}})
    assert manifest_reasons(asked, declared, policy(FEDPROX)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runs.strategies": ["FedAvg", "FedAvg"]}, "names a strategy twice"),
        ({"runs.strategies": ["FedSGD"]}, "runs.strategies"),
        (
            {"runs.strategy_parameters": {"FedAdam": {"eta": {"minimum": 0.1, "maximum": 0.2}}}},
            "is about FedAdam, which is not granted",
        ),
        (
            {"runs.strategy_parameters": {"FedAvg": {"eta": {"minimum": 0.1, "maximum": 0.2}}}},
            "FedAvg has no parameter eta",
        ),
        (
            {
                "runs.strategies": ["FedYogi"],
                "runs.strategy_parameters": {"FedYogi": {"beta_1": {"minimum": 0.1, "maximum": 1.0}}},
            },
            "FedYogi: beta_1 is not from 0 to 0.999",
        ),
        (
            {
                "runs.strategies": ["FedYogi"],
                "runs.strategy_parameters": {"FedYogi": {"tau": {"minimum": 0.2, "maximum": 0.1}}},
            },
            "minimum is above maximum",
        ),
        ({"runs.strategies": ["FedTrimmedAvg"]}, "FedTrimmedAvg takes 5 stations or more"),
        (
            {
                "runs.strategies": ["Krum"],
                "runs.strategy_parameters": {"Krum": {"num_malicious_nodes": {"minimum": 1, "maximum": 2}}},
                "release.station_results": True,
            },
            "Krum takes 5 stations or more, and runs.minimum_stations is 3",
        ),
        ({"runs.strategies": ["FedProx"]}, "FedProx takes a float proximal-mu above 0"),
        *(
            ({"runs.strategies": [name], "release.secure_aggregation": True}, f"the strategy '{name}' needs it singly")
            for name in ("FedMedian", "FedTrimmedAvg", "Krum")
        ),
    ],
)  # fmt: skip
def test_what_a_policy_cannot_grant(changes: dict[str, Any], said: str) -> None:
    assert said in complaint(changes)


@pytest.mark.parametrize("ranges", [{}, {"minimum": 1, "maximum": 1}, {"minimum": 2, "maximum": 5}])
def test_krum_that_may_hand_on_one_or_two_updates_is_granted_with_single_results_only(
    ranges: dict[str, int],
) -> None:
    granted = {
        "runs.strategies": ["Krum"],
        "runs.strategy_parameters": {"Krum": {"num_nodes_to_select": ranges} if ranges else {}},
        "runs.minimum_stations": 8,
    }
    kept = ranges.get("minimum", 1)
    said = complaint({**granted, "release.station_results": False})
    assert f"Krum may hand on the updates of {kept} of the stations alone" in said
    found = policy({**granted, "release.station_results": True})
    words = strategy_in_words("Krum", found.runs.strategy_parameters["Krum"])
    assert f"may be those of {kept} of the hospitals and nobody else" in words


def test_krum_that_keeps_three_or_more_is_granted_and_takes_five_stations() -> None:
    three = {"Krum": {"num_nodes_to_select": {"minimum": 3, "maximum": 4}}}
    granted = {
        "runs.strategies": ["Krum"],
        "runs.strategy_parameters": three,
        "release.station_results": False,
    }
    assert "Krum takes 5 stations or more" in complaint({**granted, "runs.minimum_stations": 4})
    found = policy({**granted, "runs.minimum_stations": 5})
    assert "nobody else" not in strategy_in_words("Krum", found.runs.strategy_parameters["Krum"])
    stations = {"stations": [f"s{number}" for number in range(5)], "minimum_stations": 5}
    granted["runs.minimum_stations"] = 5
    asked = {"name": "Krum", "parameters": {"num_nodes_to_select": 3}}
    assert codes(asked, granted, **stations) == []
    # Flower's default is one: an order that leaves it out asks for what is not granted.
    assert codes({"name": "Krum"}, granted, **stations) == ["ORDER_BEYOND_POLICY"]


def test_what_changed_of_a_grant_is_told() -> None:
    one = policy({"runs.strategies": ["FedAvgM"]})
    ranges = {"FedAvgM": {"server_momentum": {"minimum": 0.0, "maximum": 0.5}}}
    two = policy({"runs.strategies": ["FedAvgM"], "runs.strategy_parameters": ranges})
    wider = {"FedAvgM": {"server_momentum": {"minimum": 0.0, "maximum": 0.9}}}
    three = policy({"runs.strategies": ["FedAvgM"], "runs.strategy_parameters": wider})
    (added,) = changes_between(one, two)
    assert (added.field, added.direction) == ("runs.strategy_parameters.FedAvgM.server_momentum", "widens")
    (widened,) = changes_between(two, three)
    assert (widened.after, widened.direction) == ("0.9", "widens")
    (narrowed,) = changes_between(three, two)
    assert narrowed.direction == "narrows"


def test_a_board_reads_what_each_granted_strategy_does() -> None:
    ranges = {"FedAvgM": {"server_momentum": {"minimum": 0.0, "maximum": 0.5}}}
    changes = {"runs.strategies": ["FedAvg", "FedAvgM"], "runs.strategy_parameters": ranges}
    found = review_policy(
        policy(changes), policy_bytes(changes), DIGEST, train=None, weights=None, previous=None
    )
    lines = [line for section in found.sections for line in section.lines if line.startswith("Combined with")]
    assert lines == [
        f"Combined with FedAvg: {STRATEGIES['FedAvg'].words}.",
        f"Combined with FedAvgM: {STRATEGIES['FedAvgM'].words}; server_learning_rate 1, server_momentum 0 to 0.5.",
    ]


def test_every_strategy_is_said_in_words() -> None:
    for name, spec in STRATEGIES.items():
        said = strategy_in_words(name, {})
        assert said.startswith(f"{name}: {spec.words}")
        assert all(key in said for key in spec.parameters)
