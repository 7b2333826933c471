"""The folder of orders: durable states, one order once, nothing damaged is taken for anything else."""

import json
from pathlib import Path

import pytest
from federation_samples import DIGEST, NAMES, manifest, run_order

from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunProgress, RunState
from policies.errors import NotFoundError, StateError, UsageError
from policies.policy import ReleaseRules, TensorRules


def _accepted(digest: str = DIGEST, **changes: object) -> AcceptedOrder:
    fields: dict[str, object] = {
        "order_digest": digest,
        "envelope": "{}",
        "order": run_order(),
        "manifest": manifest(),
        "release": ReleaseRules(tensors=TensorRules(), maximum_bytes=1000),
        "nodes": {name: 2**63 + number for number, name in enumerate(NAMES)},
    }
    return AcceptedOrder(**(fields | changes))


def test_an_order_comes_back_as_it_was_given(tmp_path: Path) -> None:
    folder = FolderQueue(tmp_path).submit(_accepted())
    assert folder.read_order() == _accepted()
    assert folder.read_progress() == RunProgress(rounds=2, since=folder.read_progress().since)


def test_orders_are_taken_once_and_oldest_first(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    digests = ["sha256:" + letter * 64 for letter in "cab"]
    for digest in digests:
        queue.submit(_accepted(digest))
        queue.submit(_accepted(digest))
    taken = [queue.next_order() for _ in range(4)]
    assert [entry.order_digest if entry else None for entry in taken] == [*digests, None]


def test_an_order_left_running_is_taken_by_the_next_worker(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    queue.submit(_accepted())
    assert queue.next_order() is not None
    queue.report(DIGEST, RunProgress(state=RunState.RUNNING, round=1))
    assert queue.next_order() is None
    assert FolderQueue(tmp_path).next_order() == _accepted()


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.FAILED, RunState.STOPPED])
def test_an_order_that_is_over_is_left_alone(tmp_path: Path, state: RunState) -> None:
    queue = FolderQueue(tmp_path)
    queue.submit(_accepted())
    queue.report(DIGEST, RunProgress(state=state))
    assert FolderQueue(tmp_path).next_order() is None


def test_a_failed_order_is_resumed_and_a_finished_one_is_not(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    queue.submit(_accepted())
    with pytest.raises(UsageError):
        queue.resume(DIGEST)
    queue.request_stop(DIGEST)
    assert queue.folder(DIGEST).stop_wanted()
    queue.report(DIGEST, RunProgress(state=RunState.STOPPED, round=1))
    queue.let_go(DIGEST)
    queue.resume(DIGEST)
    assert not queue.folder(DIGEST).stop_wanted()
    assert queue.next_order() == _accepted()
    queue.report(DIGEST, RunProgress(state=RunState.FINISHED))
    with pytest.raises(UsageError):
        queue.resume(DIGEST)
    with pytest.raises(NotFoundError):
        queue.request_stop("sha256:" + "9" * 64)


def test_a_station_without_a_node_is_refused_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dommel"):
        FolderQueue(tmp_path).submit(_accepted(nodes={"amstel": 1, "berkel": 2}))
    assert list(tmp_path.iterdir()) == []


def test_a_station_reads_the_weights_of_its_orders_only(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    folder = queue.submit(_accepted())
    new = "sha256:" + "e" * 64
    assert queue.may_read("amstel", DIGEST)
    assert not queue.may_read("vecht", DIGEST)
    assert not queue.may_read("amstel", new)
    folder.write_json("checkpoint.json", {"round": 1, "weights": {"digest": new, "size": 3}})
    assert queue.may_read("amstel", new)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"order_digest": 1}', '{"a": 1, "a": 1}'])
def test_a_damaged_order_is_an_error_of_its_own(tmp_path: Path, text: str) -> None:
    queue = FolderQueue(tmp_path)
    folder = queue.submit(_accepted())
    (folder.path / "order.json").write_text(text)
    with pytest.raises(StateError):
        folder.read_order()


def test_a_round_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = FolderQueue(tmp_path).submit(_accepted())
    assert folder.read_rounds() == []
    folder.write_rounds([{"round": 1}, {"round": 2}])
    path = folder.path / "rounds.jsonl"
    path.write_text(path.read_text() + json.dumps({"round": 3})[:-3])
    assert folder.read_rounds() == [{"round": 1}, {"round": 2}]
