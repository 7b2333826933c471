"""The agreement of the station has ended, or the requester's ends before the policy does."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from attack_kit import POLICY, Siege, listed_by_secretary
from board_kit import NOW, BoardKit, register_yaml
from station_kit import STATION, STATIONS, StationKit

from policies.charter import REGISTER_PAYLOAD_TYPE, policy_target
from policies.errors import DocumentError
from policies.refusals import RefusalCode
from policies.wire.instructions import Status

CODE = RefusalCode.AGREEMENT_EXPIRED


def register(board: BoardKit, version: int, expires: str) -> None:
    """Members sign what the station's agreement says."""
    document = yaml.safe_load(register_yaml(version, *STATIONS))
    for station in document["stations"]:
        if station["name"] == STATION:
            station["agreement"]["expires"] = expires
    payload = yaml.safe_dump(document).encode()
    board.repository.set_register(board.signed(payload, payload_type=REGISTER_PAYLOAD_TYPE))


def test_a_station_whose_agreement_has_ended_runs_nothing(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    register(kit.board, 2, (NOW - timedelta(days=1)).date().isoformat())
    kit.board.publish()
    assert kit.prepare(kit.order()).code == CODE
    assert kit.sandbox.started == []
    assert list(kit.paths.cohorts.iterdir()) == []
    assert any(CODE in item.record.codes for item in kit.audit.events(limit=1000))
    kit.close()


def test_it_counts_through_its_last_day_and_stops_what_runs_after(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    register(kit.board, 2, NOW.date().isoformat())
    kit.board.publish()
    envelope = kit.ready()
    assert kit.message(envelope)[0].status is Status.RELEASED
    kit.clock.forward(hours=12)
    kit.policy_is_fresh()
    reply, arrays = kit.message(envelope, round_=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, CODE, None)
    assert len(kit.sandbox.asked) == 1
    assert kit.sandbox.running == []
    kit.close()


def test_a_policy_does_not_outlive_its_requesters_agreement(tmp_path: Path) -> None:
    """So an agreement that ended is a policy that is over, or one that nobody can sign."""
    changes = {"legal.agreement.expires": (NOW + timedelta(days=99)).date().isoformat()}
    siege = Siege.lay(tmp_path)
    envelope = siege.board.signed(siege.board.policy(changes=changes))
    with pytest.raises(DocumentError, match="agreement"):
        siege.board.repository.add_policy(envelope)

    def listed_all_the_same(board: BoardKit) -> datetime:
        return listed_by_secretary(board, {policy_target(*POLICY): envelope})

    assert siege.refused(listed_all_the_same) is RefusalCode.POLICY_INVALID
