"""An order that only waits for operators, or for who looks at what is to leave, keeps no other from its places."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from test_true_state import digest_of_number, submit

from orchestrator.federation.deadlines import answer_s, review_s
from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.federation.people import waits_for_people
from orchestrator.federation.places import Limits
from policies.wire.instructions import Kind

NOW = datetime.now(UTC).replace(microsecond=0)
LIMITS = Limits(parallel_runs=2, runs_per_station=1)


def test_too_few_acceptances_are_waited_for_after_a_minute(tmp_path: Path) -> None:
    accepted = submit(FolderQueue(tmp_path), 0).read_order()
    progress = RunProgress(state=RunState.RUNNING, stage="prepare", accepted=("amstel",), since=NOW)
    assert not waits_for_people(accepted, progress, NOW + timedelta(seconds=59))
    assert waits_for_people(accepted, progress, NOW + timedelta(seconds=60))
    enough = progress.model_copy(update={"accepted": ("amstel", "berkel")})
    assert not waits_for_people(accepted, enough, NOW + timedelta(hours=9))
    training = progress.model_copy(update={"stage": "train"})
    assert not waits_for_people(accepted, training, NOW + timedelta(hours=9))


def test_a_person_who_looks_is_all_that_is_waited_for_once_the_others_have_had_their_time(
    tmp_path: Path,
) -> None:
    accepted = submit(FolderQueue(tmp_path), 0).read_order()
    until = NOW + timedelta(seconds=review_s(accepted))
    progress = RunProgress(state=RunState.RUNNING, stage="train", reviewing={"amstel": until}, since=NOW)
    others_s = answer_s(accepted, Kind.TRAIN)
    assert not waits_for_people(accepted, progress, NOW + timedelta(seconds=others_s - 1))
    assert waits_for_people(accepted, progress, NOW + timedelta(seconds=others_s + 1))
    assert not waits_for_people(accepted, progress.model_copy(update={"reviewing": {}}), until)
    # Where most of the person's time went in an earlier stage, the others have theirs all the same.
    shorter = {"reviewing": {"amstel": NOW + timedelta(seconds=5)}, "looked_at": NOW}
    assert not waits_for_people(accepted, progress.model_copy(update=shorter), NOW + timedelta(seconds=3))


def test_orders_that_wait_for_clicks_do_not_close_the_consortium(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    for number in range(3):
        submit(queue, number)
    earlier = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    for number in range(2):
        taken = queue.next_order(LIMITS, waits_for_people)
        assert taken is not None
        assert taken.order_digest == digest_of_number(number)
        assert queue.next_order(LIMITS, waits_for_people) is None
        # As it comes to be while its ServerApp waits for operators.
        folder = queue.folder(taken.order_digest)
        folder.write_progress(RunProgress(state=RunState.RUNNING, stage="prepare"))
        folder.write_json(
            "state.json",
            folder.read_progress().model_copy(update={"since": earlier}).model_dump(mode="json"),
        )
    taken = queue.next_order(LIMITS, waits_for_people)
    assert taken is not None
    assert taken.order_digest == digest_of_number(2)
