"""What of a run is shown outside the orchestrator: where the policy does not say so, nothing that one station released."""

import json
from itertools import product
from typing import Any

import pytest
from result_documents import accepted_order, metric, round_entry

from orchestrator.results.pooling import pool, spread
from orchestrator.results.shown import pooled_rounds, shown_rounds
from policies.withheld import DIFFERENCE, TELLS_ONE, TOO_FEW

FOUR = {"amstel": 0.61, "berkel": 0.68, "dommel": 0.74, "eem": 0.83}
EXAMPLES = {"amstel": 50, "berkel": 120, "dommel": 70, "eem": 90}


def test_where_the_policy_says_so_every_stations_values_are_shown() -> None:
    entry = round_entry(1, FOUR, EXAMPLES)
    assert shown_rounds(accepted_order(station_results=True), [entry]) == [entry]


def test_without_the_policys_word_no_value_of_a_station_is_shown() -> None:
    marks = {"amstel": 0.6101, "berkel": 0.6802, "dommel": 0.7403, "eem": 0.8304}
    examples = {"amstel": 5101, "berkel": 5202, "dommel": 5303, "eem": 5404}
    entry = round_entry(1, marks, examples) | {
        "of": 4,
        "something_new": {"amstel": 0.6101},
        "deadlines": {"train": {"amstel": {"taken_s": 12.345}}},
        "late": [{"station": "eem", "taken_s": 54.321, "stage": "train", "round": 1}],
    }
    (shown,) = shown_rounds(accepted_order(), [entry])
    text = json.dumps(shown)
    assert not [value for value in (*marks.values(), *examples.values()) if str(value) in text]
    assert "12.345" not in text
    assert shown["late"] == [{"station": "eem", "stage": "train", "round": 1}]
    assert shown["of"] == 4
    assert shown["took_part"] == sorted(FOUR)
    assert shown["reported"]["evaluate"] == {"auc": 4}
    assert shown["examples_total"] == sum(examples.values())
    mean = sum(marks[name] * examples[name] for name in marks) / sum(examples.values())
    assert shown["means"]["evaluate"] == {"auc": round(mean, 4)}


@pytest.mark.parametrize("number", [1, 3])
def test_no_time_of_a_round_tells_how_long_a_station_took(number: int) -> None:
    took = dict(list({"amstel": 37.125, "berkel": 11.25, "dommel": 5.5}.items())[:number])
    times = {"train": took, "evaluate": {name: value / 2 for name, value in took.items()}, "analyse": took}
    slowest = sum(max(each.values()) for each in times.values())
    entry = round_entry(1, {name: FOUR[name] for name in took}, {name: EXAMPLES[name] for name in took}) | {
        "of": 4,
        "quorum": 1,
        "missing": {"eem": "LATE"},
        "excluded": {},
        "absent": {
            "train": {"eem": {"code": "LATE", "since": "2026-11-22T10:00:00Z", "correlation_id": None}}
        },
        "left_out": [],
        "weights": "sha256:" + "0" * 64,
        "late": [{"station": "eem", "stage": "train", "round": 1, "taken_s": 99.875}],
        "compute_s": times,
        "wall_s": slowest + 0.375,
        "overhead_s": 0.375,
        "deadlines": {"train": {name: {"given_s": 60.0, "taken_s": value} for name, value in took.items()}},
    }
    (shown,) = shown_rounds(accepted_order(), [entry])
    assert shown["compute_s"] == {}
    assert not {"wall_s", "overhead_s", "deadlines"} & shown.keys()
    told = json.dumps(shown)
    single = {value for each in times.values() for value in each.values()} | {
        slowest,
        slowest + 0.375,
        99.875,
    }
    assert not [value for value in single if str(value) in told]


@pytest.mark.parametrize("number", [1, 2])
def test_a_value_of_one_or_two_stations_is_not_pooled(number: int) -> None:
    values = dict(list(FOUR.items())[:number])
    entry = round_entry(1, values, {name: EXAMPLES[name] for name in values})
    (shown,) = shown_rounds(accepted_order(), [entry])
    assert shown["means"] == {"train": {}, "evaluate": {}}
    assert shown["withheld"]["evaluate"] == {"auc": TOO_FEW}
    assert shown["examples_total"] is None


@pytest.mark.parametrize("stages", [("evaluate",), ("train", "evaluate")])
def test_no_two_rounds_over_sets_that_overlap_are_told(stages: tuple[str, ...]) -> None:
    # Training or not: a train may leave its weights as they are, and then the fourth's value is the difference.
    order = accepted_order(stages=stages, rounds=3)
    three = {name: FOUR[name] for name in ("amstel", "berkel", "dommel")}
    rounds = [round_entry(number, values, EXAMPLES) for number, values in ((1, FOUR), (2, three), (3, FOUR))]
    told = [entry["evaluate"]["auc"] for entry in pooled_rounds(order, rounds)]
    assert [each.code for each in told] == ["", DIFFERENCE, ""]
    shown = shown_rounds(order, rounds)
    assert [entry["withheld"].get("evaluate") for entry in shown] == [None, {"auc": DIFFERENCE}, None]
    # The count of each stays the same in every run.
    shown = shown_rounds(order, [rounds[0], round_entry(2, three, {n: EXAMPLES[n] for n in three})])
    assert [entry["examples_total"] for entry in shown] == [sum(EXAMPLES.values()), None]


def test_of_rounds_over_many_sets_those_over_the_same_or_over_others_are_told() -> None:
    order = accepted_order(rounds=5)
    names = [f"s{number}" for number in range(9)]
    examples = dict.fromkeys(names, 50)
    sets = (names[:6], names[3:], names[6:], names[:6], names)
    rounds = [
        round_entry(number, {name: 0.5 + int(name[1:]) / 100 for name in each}, examples)
        for number, each in enumerate(sets, 1)
    ]
    told = [entry["evaluate"]["auc"].code for entry in pooled_rounds(order, rounds)]
    # The second has three of the first: with more such sets every single value could be worked out.
    assert told == ["", DIFFERENCE, "", "", DIFFERENCE]


def test_a_summed_table_is_told_over_the_same_stations_again() -> None:
    order = accepted_order(rounds=2)
    three = {name: FOUR[name] for name in ("amstel", "berkel", "dommel")}
    rounds = [
        round_entry(number, values, EXAMPLES)
        | {
            "tables": {"evaluate": {name: {"histogram": [[1]]} for name in values}},
            "summed_tables": {"evaluate": {"histogram": [[len(values)]]}},
        }
        for number, values in ((1, FOUR), (2, three))
    ]
    assert [entry["summed_tables"]["evaluate"] for entry in shown_rounds(order, rounds)] == [
        {"histogram": [[4]]},
        {},
    ]


@pytest.mark.parametrize(
    ("values", "examples"),
    [
        # At the end of its range, a mean is everybody's value.
        ({"a": 0.7, "b": 1.0, "c": 1.0}, {"a": 10, "b": 10, "c": 10}),
        # One so large that the mean is its own.
        ({"a": 0.7, "b": 0.5, "c": 0.8}, {"a": 10, "b": 10, "c": 5000}),
    ],
)
def test_a_mean_that_would_tell_one_value_is_withheld(
    values: dict[str, float], examples: dict[str, int]
) -> None:
    assert pool(values, examples, metric(decimals=2)).code == TELLS_ONE
    assert spread(values, examples, "a", metric(decimals=2)) is None


def consistent(
    own: str, values: dict[str, float], examples: dict[str, int], decimals: int
) -> dict[str, set[float]]:
    """By brute force: the values that each other station could have, given all that one of them is shown."""
    measured = metric(decimals=decimals)
    told = pool(values, examples, measured).value
    shown = spread(values, examples, own, measured)
    steps = [step / 10**decimals for step in range(10**decimals + 1)]
    others = [name for name in values if name != own]
    found: dict[str, set[float]] = {name: set() for name in others}
    mass = sum(examples[name] for name in values)
    for guess in product(steps, repeat=len(others)):
        if shown is not None and (min(guess), max(guess)) != (shown.lowest, shown.highest):
            continue
        total = examples[own] * values[own] + sum(examples[n] * v for n, v in zip(others, guess, strict=True))
        if told is None or abs(round(total / mass, decimals) - told) < 1e-9:
            for name, value in zip(others, guess, strict=True):
                found[name].add(value)
    return found


@pytest.mark.parametrize(
    ("values", "examples", "decimals"),
    [
        ({"a": 0.61, "b": 0.68, "c": 0.74}, {"a": 50, "b": 123, "c": 457}, 2),
        ({"a": 0.5, "b": 0.6, "c": 0.9, "d": 0.7}, {"a": 50, "b": 120, "c": 70, "d": 90}, 1),
        ({"a": 0.5, "b": 0.6, "c": 0.9, "d": 0.7}, {"a": 50, "b": 1200, "c": 70, "d": 90}, 1),
        ({"a": 0.5, "b": 0.4, "c": 0.4, "d": 0.4}, {"a": 50, "b": 120, "c": 70, "d": 90}, 1),
    ],
)
def test_what_a_hospital_is_shown_leaves_more_than_one_value_to_each_other(
    values: dict[str, float], examples: dict[str, int], decimals: int
) -> None:
    for own in values:
        assert all(len(each) > 1 for each in consistent(own, values, examples, decimals).values())


def test_a_spread_is_of_three_others_or_more_and_its_middle_of_four() -> None:
    assert spread(dict(list(FOUR.items())[:3]), EXAMPLES, "amstel", metric(decimals=2)) is None
    of_three = spread(FOUR, EXAMPLES, "amstel", metric(decimals=2))
    assert of_three is not None
    assert (of_three.lowest, of_three.highest, of_three.median) == (0.68, 0.83, None)
    five: dict[str, Any] = FOUR | {"ijssel": 0.71}
    of_four = spread(five, EXAMPLES | {"ijssel": 60}, "amstel", metric(decimals=2))
    assert of_four is not None
    assert of_four.median == pytest.approx(0.72, abs=0.006)


def test_a_spread_of_three_that_tells_whose_value_is_which_is_withheld() -> None:
    # Only with the heavy one in the middle does the mean come out: its value would be exact.
    values = {"a": 0.6, "b": 0.5, "c": 0.7, "d": 0.9}
    examples = {"a": 50, "b": 10, "c": 100, "d": 10}
    assert pool(values, examples, metric(decimals=2)).value is not None
    assert spread(values, examples, "a", metric(decimals=2)) is None
    alike = dict.fromkeys(values, 10)
    assert spread(values, alike, "a", metric(decimals=2)) is not None
