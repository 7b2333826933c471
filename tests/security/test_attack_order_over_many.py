"""More orders than the policy has runs, each well signed, with other nonces, over restarts, and two at the same moment."""

import threading
from pathlib import Path

from station_kit import StationKit, order_digest, prepare

from policies.refusals import RefusalCode
from policies.wire.instructions import Status

CODE = RefusalCode.BUDGET_RUNS


def test_an_order_too_many_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"runs.runs": 1})
    kit.decide(kit.ready(), "stop")
    for _ in range(2):
        assert kit.prepare(kit.order()).code == CODE
        kit.again()
    assert len(kit.sandbox.started) == 1
    assert any(CODE in item.record.codes for item in kit.audit.events(limit=1000))
    kit.close()


def test_two_at_once_do_not_both_take_the_last_run(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"runs.runs": 1})
    orders = [kit.order() for _ in range(4)]
    together = threading.Barrier(len(orders))

    def ask(envelope: bytes) -> None:
        together.wait(60)
        kit.service.handle(prepare(envelope), None)

    threads = [threading.Thread(target=ask, args=(envelope,)) for envelope in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    replies = [kit.prepare(envelope) for envelope in orders]
    assert sorted(reply.status.value for reply in replies) == ["accepted", *["refused"] * 3]
    assert {reply.code for reply in replies} == {None, CODE}
    assert kit.runs.runs_used("cxr-classification") == 1
    admitted = orders[[reply.status for reply in replies].index(Status.ACCEPTED)]
    assert [session.run_id for session in kit.sandbox.started] == [kit.sandbox.started[0].run_id]
    assert kit.runs.get(order_digest(admitted)) is not None
    kit.close()
