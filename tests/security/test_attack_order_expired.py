"""An order past its expiry, or from the future: refused when it comes, and in the middle of its run."""

from datetime import timedelta
from pathlib import Path

from board_kit import NOW
from station_kit import StationKit

from policies.documents import format_moment
from policies.refusals import RefusalCode
from policies.wire.instructions import Status

CODE = RefusalCode.ORDER_EXPIRED
END = NOW + timedelta(minutes=30)


def test_an_expired_order_is_not_prepared(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    kit.clock.now = END
    envelope = kit.order(expires=format_moment(END))
    assert kit.prepare(envelope).code == CODE
    assert kit.message(envelope)[0].status is Status.REFUSED
    assert kit.sandbox.started == []
    assert list(kit.paths.cohorts.iterdir()) == []
    assert any(CODE in item.record.codes for item in kit.audit.events(limit=1000))
    kit.close()


def test_a_run_ends_with_its_order(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready(expires=format_moment(END))
    kit.clock.now = END - timedelta(seconds=1)
    assert kit.message(envelope)[0].status is Status.RELEASED
    kit.clock.now = END
    reply, arrays = kit.message(envelope, round_=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, CODE, None)
    assert len(kit.sandbox.asked) == 1
    kit.close()


def test_an_order_from_the_future_waits(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    issued = format_moment(NOW + timedelta(seconds=1))
    assert kit.prepare(kit.order(issued=issued)).code == RefusalCode.ORDER_NOT_YET_VALID
    assert kit.sandbox.started == []
    kit.close()
