"""A policy is past its validity, or not in it yet; its repository is as fresh as can be."""

from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW
from station_kit import StationKit

from policies.documents import format_moment
from policies.refusals import RefusalCode
from policies.wire.instructions import Status

CODE = RefusalCode.POLICY_EXPIRED
UNTIL = NOW + timedelta(minutes=30)
ORDER = {"expires": format_moment(UNTIL)}


@pytest.fixture
def kit(tmp_path: Path) -> StationKit:
    return StationKit.make(tmp_path, {"valid_until": format_moment(UNTIL)})


def test_no_order_is_prepared_under_it(kit: StationKit) -> None:
    kit.clock.now = UNTIL
    envelope = kit.order(**ORDER)
    assert kit.prepare(envelope).code == CODE
    assert kit.message(envelope)[0].status is Status.REFUSED
    assert kit.sandbox.started == []
    assert list(kit.paths.cohorts.iterdir()) == []
    assert any(CODE in item.record.codes for item in kit.audit.events(limit=1000))
    kit.close()


def test_what_runs_gets_no_message_after_its_end(kit: StationKit) -> None:
    envelope = kit.ready(**ORDER)
    kit.clock.now = UNTIL - timedelta(seconds=1)
    assert kit.message(envelope)[0].status is Status.RELEASED
    kit.clock.now = UNTIL
    reply, arrays = kit.message(envelope, round_=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, CODE, None)
    assert len(kit.sandbox.asked) == 1
    assert kit.sandbox.running == []
    kit.close()


def test_nothing_runs_before_its_beginning(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"valid_from": format_moment(NOW + timedelta(seconds=1))})
    assert kit.prepare(kit.order()).code == RefusalCode.POLICY_NOT_YET_VALID
    assert kit.sandbox.started == []
    kit.close()
