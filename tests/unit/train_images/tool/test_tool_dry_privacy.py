"""What a dry run says of a policy's noise: epsilon, and the loss of utility."""

import math
from pathlib import Path

import numpy as np
import pytest
from egress_documents import COUNTS, Bench, head, manifest, moved, policy, weights
from map_documents import map_manifest
from privacy_kit import MULTIPLIER, grant, noisy_policy
from safetensors.numpy import load_file

from station.egress.guard import Guard
from station.egress.privacy.blurring import everybody_pays
from station.egress.release import Release
from train_images.tool.dry_privacy import cost_lines, dry_privacy, update_line, update_noise


def test_without_noise_nothing_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert dry_privacy(policy(), manifest()) is None
    assert update_noise(bench.contract(), bench.answer(), bench.inbound) is None


def test_epsilon_per_release_and_run_are_those_that_patients_are_charged() -> None:
    found = dry_privacy(noisy_policy(queries=90), manifest())
    assert found is not None
    assert found.per_release == {"train": pytest.approx(grant(2))}
    assert found.per_run == pytest.approx(grant(40))
    assert found.epsilon == grant(90)
    assert found.runs == (2, 10)
    assert found.metrics == {"loss": (MULTIPLIER * 100.0, 100.0)}
    text = " ".join(cost_lines(found))
    assert "lasts for 2 of its 10 runs" in text
    assert "standard deviation 5e+03, of a range of 100" in text


def test_of_tables_it_says_the_noise_in_patients() -> None:
    rules = noisy_policy("analysis", 200, metrics=[], tables=["lung_shares"], trust_statement=None)
    found = dry_privacy(rules, map_manifest())
    assert found is not None
    assert found.tables == {"count:lung_shares": (pytest.approx(MULTIPLIER * math.sqrt(2)), 1.0)}
    assert (
        "count:lung_shares: standard deviation 70.7 of each number, where one patient counts for up to 1"
        in " ".join(cost_lines(found))
    )


def test_the_noise_on_an_update_is_as_long_as_it_says(tmp_path: Path) -> None:
    large = {"layer.weight": np.zeros((200, 300), np.float32)}
    bench = Bench(tmp_path, large)
    rules, train = noisy_policy(), manifest(tensors={"layout": "same-as-input"})
    contract = bench.contract(train, rules)
    reply = bench.answer(moved(large, 0.001))
    found = update_noise(contract, reply, bench.inbound)
    assert found is not None
    assert found.numbers == 60_000
    assert found.norm == pytest.approx(0.001 * math.sqrt(60_000), rel=0.05)
    release = Guard(contract, COUNTS, None, everybody_pays).check(bench.request(), head(), reply)
    assert isinstance(release, Release)
    assert release.arrays is not None
    drawn = np.linalg.norm(load_file(release.arrays.path)["layer.weight"])
    assert float(drawn) == pytest.approx(found.noise_norm, rel=0.05)
    assert "times the update" in update_line(1, found)


def test_an_update_of_zeros_is_said_to_be_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(rules=noisy_policy())
    found = update_noise(contract, bench.answer(weights()), bench.inbound)
    assert found is not None
    assert found.signal == 0
    assert "all zeros" in update_line(3, found)
