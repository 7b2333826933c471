"""An order through a real SuperLink: every round, with what each station released, and the weights they add up to."""

from pathlib import Path

import numpy as np
import pytest
from flower_federation import NAMES, Federation, PlainStation, federation, order, wait_until, weights
from safetensors.numpy import load_file

from orchestrator.federation.orders import RunState, Timing
from policies.wire.instructions import Instruction, Kind, StationReply, Status

pytestmark = pytest.mark.superlink


@pytest.fixture
def running(tmp_path: Path):  # noqa: ANN201 - a generator fixture
    with federation(tmp_path) as found:
        yield found


def _join_all(running: Federation, **changes: PlainStation) -> dict[str, PlainStation]:
    handlers = {name: PlainStation(number + 1, 10 * (number + 1)) for number, name in enumerate(NAMES)}
    handlers |= changes
    for name, handler in handlers.items():
        running.join(name, handler)
    return handlers


def test_an_order_runs_its_rounds_and_averages_by_examples(running: Federation) -> None:
    handlers = _join_all(running)
    initial = weights()
    running.put_blob(initial)
    folder = running.accept(order(initial, rounds=2))
    wait_until(lambda: folder.read_progress().state.is_over, "the order")

    progress = folder.read_progress()
    assert progress.state is RunState.FINISHED
    assert progress.flower_runs == 1
    rounds = folder.read_rounds()
    assert [entry["round"] for entry in rounds] == [1, 2]
    assert rounds[0]["took_part"] == list(NAMES)
    assert rounds[0]["missing"] == {}
    # Steps 1, 2, 3 weighted 10, 20, 30: 14/6 a round.
    assert rounds[0]["means"]["train"]["loss"] == pytest.approx(14 / 6)
    assert rounds[0]["means"]["evaluate"]["auc"] == pytest.approx((0.6 * 10 + 0.7 * 20 + 0.8 * 30) / 60)

    digest = rounds[-1]["weights"]["digest"].removeprefix("sha256:")
    final = load_file(running.blobs / "sha256" / digest)
    assert np.allclose(final["layer.bias"], 2 * 14 / 6)
    assert np.allclose(final["layer.weight"], np.arange(12).reshape(3, 4) + 2 * 14 / 6)
    # An integer is not averaged: the heaviest station's 7 + 3 + 3.
    assert final["norm.count"].dtype == np.int64
    assert final["norm.count"].tolist() == [13]
    expected = ["prepare 0", "train 1", "evaluate 1", "train 2", "evaluate 2", "finish 0"]
    for handler in handlers.values():
        assert [f"{kind} {round_}" for kind, round_ in handler.questions] == expected
    # The updates of single stations are gone once they are averaged.
    assert not (folder.path / "replies").exists()


def test_the_run_s_end_is_noticed(running: Federation) -> None:
    handlers = _join_all(running)
    initial = weights()
    running.put_blob(initial)
    folder = running.accept(order(initial, rounds=1))
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    wait_until(lambda: all(handler.over for handler in handlers.values()), "run over")
    assert handlers["amstel"].over == [folder.order_digest]


def test_a_station_that_refuses_is_named_and_the_others_go_on(running: Federation) -> None:
    def refuse(
        instruction: Instruction, reply: StationReply, arrays: bytes | None
    ) -> tuple[StationReply, bytes | None]:
        refused = reply.model_copy(
            update={
                "status": Status.REFUSED,
                "code": "POLICY_REVOKED",
                "metrics": {},
                "tables": {},
                "release": None,
            }
        )
        return refused, None

    _join_all(running, dommel=PlainStation(3, 30, alter=refuse))
    initial = weights()
    running.put_blob(initial)
    folder = running.accept(order(initial, rounds=1))
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    assert folder.read_progress().state is RunState.FINISHED
    entry = folder.read_rounds()[0]
    assert entry["took_part"] == ["amstel", "berkel"]
    assert entry["missing"] == {"dommel": "POLICY_REVOKED"}


def test_a_bad_release_is_left_out_and_named(running: Federation) -> None:
    def spoil(
        instruction: Instruction, reply: StationReply, arrays: bytes | None
    ) -> tuple[StationReply, bytes | None]:
        return (
            (reply, arrays[:-4] + b"\xff\xff\xff\x7f")
            if arrays and instruction.kind is Kind.TRAIN
            else (reply, arrays)
        )

    _join_all(running, berkel=PlainStation(2, 20, alter=spoil))
    initial = weights()
    running.put_blob(initial)
    folder = running.accept(order(initial, rounds=1))
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    assert folder.read_progress().state is RunState.FINISHED
    assert folder.read_rounds()[0]["missing"] == {"berkel": "RELEASE_DIGEST"}
    assert set(folder.read_rounds()[0]["train"]) == {"amstel", "dommel"}


def test_too_few_stations_fail_the_order_with_a_code_and_it_can_be_resumed(running: Federation) -> None:
    amstel = PlainStation(1, 10)
    running.join("amstel", amstel)
    initial = weights()
    running.put_blob(initial)
    # As long as the one that is there may take to accept, and all three afterwards.
    short = Timing(prepare_s=10.0, prepare_grace_s=10.0, answer_s=300.0, straggler_s=120.0)
    folder = running.accept(order(initial, rounds=1), short)
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    assert folder.read_progress().state is RunState.FAILED
    assert folder.read_progress().code == "TOO_FEW_STATIONS_ACCEPTED"
    assert set(folder.read_progress().missing) == {"berkel", "dommel"}

    running.join("berkel", PlainStation(2, 20))
    running.join("dommel", PlainStation(3, 30))
    running.queue.resume(folder.order_digest)
    wait_until(lambda: folder.read_progress().state.is_over, "the order again")
    assert folder.read_progress().state is RunState.FINISHED


def test_an_operator_stops_an_order(running: Federation) -> None:
    _join_all(running, amstel=PlainStation(1, 10, delay_s=30.0))
    initial = weights()
    running.put_blob(initial)
    folder = running.accept(order(initial, rounds=1))
    wait_until(lambda: folder.read_progress().stage == "train", "training")
    running.queue.request_stop(folder.order_digest)
    wait_until(lambda: folder.read_progress().state is RunState.STOPPED, "stopped")


def test_an_evaluation_order_aggregates_nothing(running: Federation) -> None:
    handlers = _join_all(running)
    initial = weights()
    running.put_blob(initial)
    strategy = {"name": "none", "parameters": {}}
    folder = running.accept(order(initial, rounds=1, stages=["evaluate"], strategy=strategy))
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    assert folder.read_progress().state is RunState.FINISHED
    assert "weights" not in folder.read_rounds()[0]
    assert folder.read_rounds()[0]["means"]["evaluate"]["auc"] == pytest.approx(44 / 60)
    assert [kind for kind, _ in handlers["amstel"].questions] == ["prepare", "evaluate", "finish"]
