"""A requester or a station that the board withdrew, and a table of purposes that changed, while an order runs."""

from collections.abc import Callable

import pytest
from station_kit import STATION, STATIONS, StationKit, honest, in_the_middle
from test_runs_consent_policy import answered, look

from policies.wire.instructions import Kind, Status

OTHERS = [name for name in STATIONS if name != STATION]
Withdraw = Callable[[StationKit], None]


def vouched(kit: StationKit) -> None:
    kit.board.publish(now=kit.clock())
    kit.clock.forward(seconds=2)


def requester(kit: StationKit) -> None:
    key = kit.board.keys["requester"].public_hex
    kit.board.repository.revoke_requester(key, "the key was stolen", now=kit.clock())
    vouched(kit)


def this_station(kit: StationKit) -> None:
    kit.board.repository.revoke_station(STATION, "it left the consortium", now=kit.clock())
    vouched(kit)


def a_peer(kit: StationKit) -> None:
    kit.board.repository.revoke_station(OTHERS[0], "it left the consortium", now=kit.clock())
    vouched(kit)


WITHDRAWALS = [
    pytest.param(requester, "REQUESTER_REVOKED", id="requester"),
    pytest.param(this_station, "STATION_REVOKED", id="this station"),
    # Three stations in the order and three that the policy asks for: without one, too few are left.
    pytest.param(a_peer, "STATION_REVOKED", id="a peer"),
]


@pytest.mark.parametrize(("withdraw", "code"), WITHDRAWALS)
def test_the_next_message_ends_the_run(kit: StationKit, withdraw: Withdraw, code: str) -> None:
    envelope = kit.ready()
    assert answered(kit, envelope) == ("released", None)
    withdraw(kit)
    assert answered(kit, envelope, Kind.EVALUATE) == ("refused", code)
    assert kit.state(envelope) == "stopped"
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []
    # A release that is recorded does not leave again either.
    assert answered(kit, envelope) == ("refused", "RUN_STOPPED")
    assert kit.prepare(envelope).code == "RUN_STOPPED"


@pytest.mark.parametrize(("withdraw", "code"), WITHDRAWALS)
def test_a_message_under_way_is_ended(kit: StationKit, withdraw: Withdraw, code: str) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (_, replies):
        withdraw(kit)
        look(kit)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, code)]
    look(kit)
    assert kit.state(envelope) == "stopped"
    assert kit.releases.list() == []


@pytest.mark.parametrize(("withdraw", "code"), WITHDRAWALS)
def test_what_the_train_answers_meanwhile_is_withheld(kit: StationKit, withdraw: Withdraw, code: str) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        withdraw(kit)
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", code)
    assert kit.releases.list() == []


@pytest.mark.parametrize(("withdraw", "code"), WITHDRAWALS)
def test_a_new_order_is_refused(kit: StationKit, withdraw: Withdraw, code: str) -> None:
    withdraw(kit)
    assert kit.prepare(kit.order()).code == code


def test_the_others_go_on_while_enough_are_left(kit: StationKit) -> None:
    kit.board.repository.set_register(kit.board.signed_register(2, *STATIONS, "left"))
    kit.policy_is_fresh()
    envelope = kit.ready(stations=[*STATIONS, "left"])
    kit.board.repository.revoke_station("left", "it left the consortium", now=kit.clock())
    vouched(kit)
    look(kit)
    assert answered(kit, envelope) == ("released", None)


def test_a_table_that_asks_more_consents_stops_the_run_until_the_policy_does(kit: StationKit) -> None:
    envelope = kit.ready()
    assert answered(kit, envelope) == ("released", None)
    stricter = [
        {
            "purpose": "method-development",
            "requester_class": "participant",
            "consents": ["research-participants", "research-third-parties"],
        }
    ]
    kit.board.repository.set_purposes(kit.board.signed_purposes(2, {"rules": stricter}))
    vouched(kit)
    look(kit)
    assert not kit.sandbox.running
    assert answered(kit, envelope, Kind.EVALUATE) == ("refused", "PURPOSE_CONSENTS_TOO_FEW")
    assert kit.state(envelope) != "stopped", "the board may change its table back"
    kit.board.repository.set_purposes(kit.board.signed_purposes(3))
    vouched(kit)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert answered(kit, envelope, Kind.EVALUATE) == ("released", None)


def test_no_table_no_run(kit: StationKit) -> None:
    from policies.purposes import PURPOSES_TARGET

    listed = kit.board.repository.listed()
    del listed[PURPOSES_TARGET]
    kit.board.publish_unchecked(listed, now=kit.clock())
    kit.clock.forward(seconds=2)
    assert kit.prepare(kit.order()).code == "PURPOSE_TABLE_MISSING"
