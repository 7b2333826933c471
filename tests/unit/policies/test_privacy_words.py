"""What members and lawyers read about a policy's noise."""

from typing import Any

from admission_facts import manifest, policy

from policies.manifest import Interface, TrainKind, TrainManifest
from policies.policy import Policy
from policies.rules.capacity import trust_in_words
from policies.rules.privacy_words import NOT_COVERED, noise_attention, noise_in_words, not_covered

NOISY = {
    "release.tensors.clipping_norm": 1.0,
    "release.tensors.float_buffers": "withhold",
    "release.timing_quantum_s": 60.0,
    "release.differential_privacy": {"noise_multiplier": 50.0, "epsilon": 1.0, "delta": 1e-6},
}


def said(changes: dict[str, Any] | None = None, train: TrainManifest | None = None) -> str:
    return " ".join(noise_in_words(noisy(changes), train or manifest()))


def noisy(changes: dict[str, Any] | None = None) -> Policy:
    return policy({**NOISY, **(changes or {})})


def test_without_noise_nothing_is_said() -> None:
    assert noise_in_words(policy(), manifest()) == ()
    assert noise_attention(policy(), manifest()) == ()
    assert NOT_COVERED not in trust_in_words(policy(), manifest())


def test_epsilon_is_said_as_how_much_likelier() -> None:
    text = said()
    assert "at most 2.72 times as likely" in text
    assert "a chance of 1 in 1,000,000" in text
    assert "50 times as wide" in text


def test_what_a_release_and_a_run_cost_is_said_with_what_the_budget_lasts_for() -> None:
    text = said()
    assert "train: 0." in text
    assert "evaluate: 0." in text
    assert "one run 0." in text
    assert "All runs that the policy permits together cost" in text or "The budget lasts for" in text
    tight = said({"release.differential_privacy": {**NOISY["release.differential_privacy"], "epsilon": 0.95}})  # type: ignore[dict-item]
    assert "then stations refuse" in tight


def test_without_the_train_the_promise_is_said_and_no_cost() -> None:
    text = " ".join(noise_in_words(noisy(), None))
    assert "Differential privacy" in text
    assert "one run" not in text


def test_what_noise_does_not_cover_is_said_where_trust_is() -> None:
    text = trust_in_words(noisy(), manifest())
    assert "whether a message failed" in text
    assert "rounded to tens" in text


def test_the_promise_is_of_cohorts_that_are_alike_in_each_split() -> None:
    assert "another patient of the same part of the cohort (training, validation or testing)" in said()
    text = trust_in_words(noisy(), manifest())
    assert "in all and in each part of the cohort" in text


def test_of_a_train_of_one_patient_at_a_time_the_promise_is_one_about_honest_programs() -> None:
    """Its containers run on one kernel; a training train's one container was never thought to keep patients apart."""
    one_by_one = manifest().model_copy(update={"interface": Interface.MAP})
    alone = manifest().model_copy(update={"interface": Interface.STATION})
    words = "signal from one patient's container to another's through what the host shares"
    assert words in not_covered(noisy(), one_by_one)
    assert "holds against anybody" in not_covered(noisy(), one_by_one)
    assert words not in not_covered(noisy(), manifest())
    assert words not in not_covered(noisy(), alone)
    analysis = noisy().model_copy(update={"kind": TrainKind.ANALYSIS})
    assert words in not_covered(analysis, None)
    assert words in trust_in_words(analysis, one_by_one)


def test_figures_that_noise_makes_useless_are_points_to_look_at() -> None:
    points = noise_attention(noisy(), manifest())
    assert any("says next to nothing" in point for point in points)
    fine = manifest().model_copy(update={"outputs": manifest().outputs.model_copy(update={"metrics": ()})})
    assert not any("says next to nothing" in point for point in noise_attention(noisy(), fine))


def test_a_promise_that_says_little_is_a_point_to_look_at() -> None:
    weak = {"noise_multiplier": 5.0, "epsilon": 14.0, "delta": 1e-6}
    points = " ".join(noise_attention(noisy({"release.differential_privacy": weak}), None))
    assert "epsilon is 14" in points
    careless = {"noise_multiplier": 50.0, "epsilon": 1.0, "delta": 1e-2}
    points = " ".join(noise_attention(noisy({"release.differential_privacy": careless}), None))
    assert "delta is 0.01" in points
