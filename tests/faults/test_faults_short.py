"""The fault test in its short form: one seed, one fault of each family, on every run of the tests."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.e2e.programs import run_to_its_end
from tests.faults.invariants import Books, counted_once, differences, recomputed
from tests.faults.run import Report
from tests.faults.schedule import draw, told
from tests.faults.topology import STATIONS, STRATEGIES

SEED = 2
FAULTS = 8


def test_equal_seeds_give_equal_schedules() -> None:
    first, again, other = (list(told(draw(seed, 60, "long", STATIONS))) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_kind_of_fault_comes_where_there_is_room() -> None:
    kinds = [fault.kind for event in draw(3, 200, "long", STATIONS) for fault in event.faults]
    assert len(kinds) == 200
    assert {kind.split(" ")[0] for kind in kinds} == {"kill", "cut", "fill", "clock", "freeze"}
    assert all(
        kinds.count(f"kill {who}") for who in ("serverapp", "superlink", "front", "container", "engine")
    )


KEY = ("sha256:" + "a" * 64, 1, "train")
REPLY = b"a reply"
OWN = "sha256:" + hashlib.sha256(REPLY).hexdigest()


def test_books_in_order_have_nothing_wrong() -> None:
    books = Books({KEY: (REPLY, None)}, Counter({KEY: 1}), {KEY: {OWN}}, recorded=1, counter=1)
    assert list(counted_once(books)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"left": Counter({KEY: 2})}, "left 2 times for the first time"),
        ({"left": Counter()}, "left 0 times for the first time"),
        ({"repeats": {KEY: {OWN, "sha256:" + "b" * 64}}}, "left again as 1 other messages"),
        ({"counter": 2}, "1 releases on record, 2 counted, 1 in the audit"),
        ({"recorded": 0}, "1 releases on record, 1 counted, 0 in the audit"),
        ({"left": Counter({KEY: 1, (KEY[0], 2, "train"): 1})}, "1 releases left that are not recorded"),
    ],
)
def test_what_was_doubled_or_lost_is_seen(changed: dict[str, Any], said: str) -> None:
    books = Books({KEY: (REPLY, None)}, Counter({KEY: 1}), {}, recorded=1, counter=1)
    assert any(said in problem for problem in counted_once(dataclasses.replace(books, **changed)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_update_that_was_taken_twice_or_computed_again_shows_in_the_model(strategy: str) -> None:
    chance = np.random.default_rng(5)
    start = {"wide": chance.normal(size=100).astype(np.float32)}
    one, two, three, again = ((10, {"wide": chance.normal(size=100).astype(np.float32)}) for _ in range(4))
    right = {"a": one, "b": two, "c": three}
    model = recomputed(strategy, start, [right, right])
    assert list(differences(model, recomputed(strategy, start, [right, dict(right)]))) == []
    for wrong in (right | {"d": one}, right | {"a": again}, {"a": one, "b": two}):
        assert list(differences(model, recomputed(strategy, start, [right, wrong])))
        assert list(differences(model, recomputed(strategy, start, [wrong, right])))
    assert list(differences(model, recomputed(strategy, start, [right])))


def test_a_schedule_that_was_not_carried_out_is_seen() -> None:
    report = Report(done=Counter({"kill front": 19}), missed=Counter({"kill container": 1}))
    assert report.short_of(20) == []
    assert report.short_of(30) == ["19 of 30 faults came"]
    report.missed["kill container"] += 5
    assert report.short_of(20) == ["6 of 20 faults found nobody to hit"]


@pytest.mark.e2e
@pytest.mark.docker
@pytest.mark.superlink
@pytest.mark.timeout(5500)
def test_runs_go_on_by_themselves_and_nothing_is_lost_or_doubled() -> None:
    if os.geteuid() != 0:
        pytest.skip("the fault test makes namespaces and mounts: run it as root")
    command = ["-m", "tests.faults.run", "--form", "short", "--seed", str(SEED), "--faults", str(FAULTS)]
    done = run_to_its_end(command, 5400, stderr=subprocess.STDOUT)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.rstrip().endswith("nothing lost, nothing doubled")
