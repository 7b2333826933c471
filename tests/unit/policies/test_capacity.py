"""How much could leave: an upper bound that only grows with what is permitted."""

import math

import pytest
import yaml
from board_kit import example_policy
from hypothesis import given
from hypothesis import strategies as st

from policies.documents import load_yaml
from policies.manifest import TrainManifest
from policies.outputs import TensorOutputs, TensorSpec
from policies.policy import Policy, TensorRules
from policies.refusals import RefusalCode
from policies.rules.capacity import (
    BITS_PER_RADIOGRAPH,
    FAILED_MESSAGES,
    bits_in_words,
    capacity,
    in_words,
    release_bits,
    trust_in_words,
)
from policies.rules.channels import noisy_bits
from policies.wire.arrays import TensorShape
from policies.wire.releases import release_tensors

MANIFEST = load_yaml(
    TrainManifest,
    yaml.safe_dump(
        {
            "schema_version": 1,
            "name": "train",
            "version": "1.0.0",
            "title": "A train",
            "kind": "training",
            "interface": "flower",
            "data": {"modalities": ["DX"], "profile": "thorax-1@1"},
            "outputs": {
                "tensors": {"layout": "same-as-input"},
                "metrics": [
                    {
                        "key": "loss",
                        "stage": "train",
                        "minimum": 0,
                        "maximum": 10,
                        "decimals": 2,
                        "split": "training",
                    },
                    {
                        "key": "cases",
                        "stage": "evaluate",
                        "type": "int",
                        "minimum": 0,
                        "maximum": 255,
                        "split": "validation",
                    },
                ],
            },
            "error_codes": ["NO_DATA", "DIVERGED"],
            "resources": {"memory_mib": 256, "cpus": 1, "message_timeout_s": 1023},
            "contact": {"name": "A", "organisation": "B", "email": "a@b.nl"},
            "licence": "Apache-2.0",
            "source_commit": "unversioned",
        }
    ).encode(),
    what="manifest",
)


def policy(**changes: object) -> Policy:
    return load_yaml(
        Policy, example_policy({key.replace("__", "."): value for key, value in changes.items()}), what="p"
    )


def weights(elements: int) -> list[TensorShape]:
    return [TensorShape("w", "float32", (elements,))]


def test_each_output_counts_by_what_it_can_say() -> None:
    found = capacity(
        policy(
            release__metrics=["loss", "cases"],
            release__error_codes=["DIVERGED", "NO_DATA"],
            release__tensors={"maximum_absolute": 1e6},
        ),
        MANIFEST,
        weights(1000),
    )
    bits = {part.what: part.bits for part in found.parts}
    # Of 2**32 patterns those that are finite, no larger than the policy's 1e6 (one step more on each side), with one zero.
    numbers = 1000 * math.log2(2 * (0x49742400 + 1) + 1)
    assert bits["parameters: 1,000 float32 numbers"] == pytest.approx(numbers)
    assert 31_000 < numbers < 32_000
    assert bits["metric loss (train)"] == math.log2(1001)
    assert bits["metric cases (evaluate)"] == 8
    # steps of 1 s up to twice 1023 s; released, one of two codes of its own, or any of the closed list
    signal = math.log2(2047) + math.log2(3 + len(RefusalCode))
    assert bits["outcome and duration of a message"] == signal
    assert found.bits_per_round == pytest.approx(numbers + math.log2(1001) + 8 + 2 * signal)
    assert found.bits_per_run == pytest.approx(found.bits_per_round * 20 + FAILED_MESSAGES * signal)


def test_half_precision_halves_the_weights() -> None:
    whole = capacity(policy(), None, weights(10**6)).bits_per_round
    half = capacity(policy(release__tensors={"precision": "bfloat16"}), None, weights(10**6)).bits_per_round
    assert half < whole * 0.51


def test_a_release_never_holds_more_than_its_ceiling() -> None:
    found = capacity(policy(release__maximum_bytes=1000), None, weights(10**9))
    assert found.bits_per_round < 2 * (8000 + 200)
    assert capacity(policy(release__maximum_bytes=1000)).bits_per_round == found.bits_per_round


def test_without_a_quantum_the_duration_counts_in_full() -> None:
    assert (
        capacity(policy(release__timing_quantum_s=0.0), None, weights(0)).bits_per_round
        > capacity(policy(), None, weights(0)).bits_per_round + 80
    )


def test_each_moment_that_goes_on_record_counts() -> None:
    def duration(limit: float | None) -> float:
        plain = policy()
        release = plain.release.model_copy(update={"membership_limit": limit, "error_codes": ()})
        found = capacity(plain.model_copy(update={"release": release}), None, weights(0))
        return next(part.bits for part in found.parts if part.what == "outcome and duration of a message")

    # Judged, scored, answered.
    plain = duration(None) - math.log2(1 + len(RefusalCode))
    assert duration(0.7) == pytest.approx(duration(None) + 2 * plain)


def test_the_total_is_bounded_by_releases() -> None:
    few = capacity(policy(runs__releases=20), None, weights(10**6))
    many = capacity(policy(runs__releases=2000), None, weights(10**6))
    assert few.bits_in_total < many.bits_in_total == many.bits_per_run * 5
    assert few.bits_in_total > few.bits_per_round * 20 / 2


def test_an_evaluation_carries_little() -> None:
    evaluation = policy(
        kind="evaluation", release__tensors=None, release__trust_statement=None, runs__strategies=["none"]
    )
    found = capacity(evaluation, MANIFEST)
    assert found.radiographs_per_round < 1
    assert "less than one radiograph" in in_words(found)
    assert trust_in_words(evaluation).startswith("Whoever wrote")


def private(multiplier: float, **tensors: object) -> Policy:
    return policy(
        release__metrics=["loss"],
        release__differential_privacy={"noise_multiplier": multiplier, "epsilon": 8.0, "delta": 0.00001},
        release__tensors={"clipping_norm": 1.0, "float_buffers": "withhold", **tensors},
        runs__runs=1,
        runs__rounds=1,
    )


@pytest.mark.parametrize("elements", [10, 10**4, 10**7])
def test_noise_leaves_less_than_a_bit_of_any_update(elements: int) -> None:
    found = capacity(private(50.0), MANIFEST, weights(elements))
    (update,) = (part for part in found.parts if part.what.startswith("parameters"))
    assert update.bits == noisy_bits(50.0) < 0.001
    assert "under the station's noise" in update.what
    (loss,) = (part for part in found.parts if part.what == "metric loss (train)")
    assert loss.bits < 0.001
    assert found.without_noise is not None
    assert found.without_noise > elements * 25
    assert "without the station's noise it would be" in in_words(found)
    # What is left is how messages end and how long they take.
    signals = math.fsum(part.bits for part in found.parts if part.what.startswith("outcome"))
    assert found.bits_per_round == pytest.approx(signals, abs=0.01)


def test_noise_on_an_update_of_unknown_size_bounds_it_too() -> None:
    found = capacity(private(50.0), MANIFEST)
    assert found.radiographs_per_round < 1
    assert capacity(policy(), MANIFEST).radiographs_per_round > 1000


def test_each_kind_of_tensor_counts_by_its_own_rule() -> None:
    tensors = [
        TensorShape("conv.weight", "float32", (100,)),
        TensorShape("norm.running_mean", "float32", (10,)),
        TensorShape("norm.num_batches_tracked", "int64", ()),
        TensorShape("mask", "bool", (50,)),
    ]
    train = MANIFEST.model_copy(
        update={
            "outputs": MANIFEST.outputs.model_copy(
                update={"tensors": TensorOutputs(layout="same-as-input", buffers=("*.running_*",))}
            )
        }
    )

    def parts(**rules: object) -> dict[str, float]:
        found = capacity(policy(release__tensors=rules), train, tensors)
        return {part.what.split(":")[0]: part.bits for part in found.parts}

    everything = parts(integer_buffers="release", maximum_absolute=1000.0)
    assert everything["integer buffers"] == pytest.approx(math.log2(2001) + 50)
    assert everything["float buffers"] * 10 == pytest.approx(everything["parameters"])
    closed = parts(float_buffers="withhold", clipping_norm=0.1)
    assert {"float buffers", "integer buffers"}.isdisjoint(closed)
    assert closed["parameters"] < everything["parameters"]


def test_other_weights_than_the_trains_carry_nothing() -> None:
    """No station releases a difference from weights that are not those the manifest lists."""
    spec = TensorSpec(name="w", shape=(4,), dtype="float32")
    listed = TensorOutputs(layout="listed", listed=(spec,))
    train = MANIFEST.model_copy(update={"outputs": MANIFEST.outputs.model_copy(update={"tensors": listed})})
    own = capacity(policy(), train)
    assert capacity(policy(), train, [TensorShape("w", "float32", (4,))]) == own
    assert capacity(policy(), train, [TensorShape("w", "float32", (9,))]).bits_per_round < own.bits_per_round


def test_a_station_counts_what_the_board_was_shown() -> None:
    rules = policy(release__metrics=["loss", "cases"])
    tensors = release_tensors(
        TensorOutputs(layout="same-as-input"), rules.release.tensors or TensorRules(), weights(1000)
    )
    each = [release_bits(rules.release, MANIFEST, stage, tensors) for stage in ("train", "evaluate")]
    shown = capacity(rules, MANIFEST, weights(1000)).bits_per_round
    assert shown <= sum(each) < shown + 2


def test_the_words_name_who_is_trusted() -> None:
    assert "not to study it" in trust_in_words(policy())
    assert "not to code images into the weights or into the numbers it states" in trust_in_words(policy())
    noise = {"noise_multiplier": 50.0, "epsilon": 8.0, "delta": 0.00001}
    private = policy(
        release__differential_privacy=noise,
        release__tensors={"clipping_norm": 1.0, "float_buffers": "withhold"},
    )
    assert "blurred" in trust_in_words(private)
    assert "orchestrator" not in trust_in_words(
        private.model_copy(
            update={"release": private.release.model_copy(update={"secure_aggregation": True})}
        )
    )


def test_a_densenet_in_radiographs() -> None:
    found = capacity(policy(), None, weights(6_955_906))
    assert found.radiographs_per_round == pytest.approx(6_955_906 * 31.1 / BITS_PER_RADIOGRAPH, rel=0.001)
    assert 2_500 < found.radiographs_per_round < 3_500


@given(elements=st.integers(0, 10**7), more=st.integers(0, 10**6), rounds=st.integers(1, 50))
def test_more_permitted_is_never_less_capacity(elements: int, more: int, rounds: int) -> None:
    rules = policy(runs__rounds=rounds, runs__releases=10**6)
    small, large = capacity(rules, None, weights(elements)), capacity(rules, None, weights(elements + more))
    assert small.bits_per_round <= large.bits_per_round
    assert small.bits_per_run > small.bits_per_round * rounds
    assert small.radiographs == small.bits_per_run / BITS_PER_RADIOGRAPH


def test_bits_have_units() -> None:
    assert [bits_in_words(n) for n in (0.5, 999, 1e3, 999_400, 999_600, 2.5e6, 3e9, 4e12)] == [
        "1 bits",
        "999 bits",
        "1 kbit",
        "999 kbit",
        "1 Mbit",
        "2.5 Mbit",
        "3 Gbit",
        "4 Tbit",
    ]
