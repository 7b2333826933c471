"""Attack: a train says what it found by how long it takes over each message; a quantum leaves it one moment for all of them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from moments_kit import SkippingClock
from station_kit import StationKit, as_yaml
from warm_kit import warm_station

from policies.documents import digest_of
from policies.wire.instructions import Kind, Status
from station.runs.moments import Moments

pytestmark = pytest.mark.docker

SLOW_S = 6.0
QUANTUM_S = 3600.0
"""An hour: no machine is so busy that an honest message takes longer. It passes at once, by the station's own clock."""

APP = f"""
import json
import time

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
cases = json.load(open("/train/data/datalist.json"))["training"]
asked = []

@app.train()
def train(message, context):
    # The label of one patient after the other, a message each.
    if cases[len(asked)]["label"]:
        time.sleep({SLOW_S})
    asked.append(1)
    arrays = {{name: array.numpy() for name, array in message.content["arrays"].items()}}
    moved = {{name: Array(value + value.dtype.type(1) if value.dtype.kind == "f" else value) for name, value in arrays.items()}}
    return Message(content=RecordDict({{"arrays": ArrayRecord(moved), "metrics": MetricRecord({{"loss": 0.5}})}}), reply_to=message)
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationKit]:
    policy = {"runs.runs": 10, "runs.releases": 100, "resources.run_hours": 100.0}
    with warm_station(tmp_path_factory.mktemp("timing"), policy, app=APP, tag="pht-test-timing:1") as made:
        clock = SkippingClock()
        made.moments = Moments(clock, clock.wait)
        made.database.close()
        made.open()
        yield made


def ordered(kit: StationKit, quantum_s: float) -> bytes:
    """An order under a version of the policy with this quantum."""
    document = as_yaml(kit.policy)
    document["version"] = 3 if quantum_s else 2
    document["release"]["timing_quantum_s"] = quantum_s
    policy = yaml.safe_dump(document).encode()
    kit.board.publish(kit.board.signed(policy), now=kit.clock())
    kit.clock.forward(seconds=2)
    return kit.ready(policy_version=document["version"], policy_digest=digest_of(policy))


def labels(kit: StationKit, envelope: bytes) -> list[int]:
    """What the hospital's own files say of the first patients, in the order in which the train meets them."""
    (cohort,) = [path for path in kit.paths.cohorts.iterdir() if (path / "data").is_dir()]
    listed: list[dict[str, Any]] = json.loads((cohort / "data" / "datalist.json").read_text())["training"]
    return [int(case["label"]) for case in listed]


def moments(kit: StationKit, envelope: bytes, rounds: int) -> list[float]:
    """How long each reply took, as an orchestrator sees it."""
    taken = []
    for number in range(1, rounds + 1):
        began = kit.moments.now()
        reply, _ = kit.message(envelope, Kind.TRAIN, number)
        taken.append(kit.moments.now() - began)
        assert reply.status is Status.RELEASED, reply
        assert reply.compute_s in (0.0, QUANTUM_S)
    kit.decide(envelope, "stop")
    return taken


def test_without_a_quantum_the_moments_are_the_labels(kit: StationKit) -> None:
    envelope = ordered(kit, 0.0)
    secret = labels(kit, envelope)
    rounds = 1 + next(number for number, label in enumerate(secret) if label != secret[0])
    decoded = [int(taken >= SLOW_S) for taken in moments(kit, envelope, rounds)]
    assert decoded == secret[:rounds]
    assert set(decoded) == {0, 1}


def test_with_a_quantum_every_moment_is_the_same(kit: StationKit) -> None:
    envelope = ordered(kit, QUANTUM_S)
    secret = labels(kit, envelope)
    rounds = 1 + next(number for number, label in enumerate(secret) if label != secret[0])
    assert {int(taken // QUANTUM_S) for taken in moments(kit, envelope, rounds)} == {1}
