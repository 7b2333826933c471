"""Which images are still needed, by what a station's orders and the board's policies say now."""

from station_kit import IMAGE, StationKit, order_digest

from policies.refusals import RefusalCode, Refused
from station.runs.needed_images import NeededImages


def needed(kit: StationKit) -> NeededImages:
    return NeededImages(kit.runs, kit.clock, lambda: kit.gatekeeper.policy_set(fresh=False))


def test_a_policy_in_force_and_an_open_order_need_their_image(kit: StationKit) -> None:
    found = needed(kit)()
    assert found is not None
    ((policy,),) = found.values()
    assert policy.startswith("policy ")
    assert set(found) == {IMAGE}
    envelope = kit.ready()
    words = (needed(kit)() or {})[IMAGE]
    assert words == (policy, f"order {order_digest(envelope)[7:19]}")


def test_an_order_keeps_its_image_when_its_policy_is_withdrawn_and_until_it_is_over(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.board.repository.revoke("cxr-classification", 1, "a fault was found", now=kit.clock())
    kit.policy_is_fresh()
    kit.gatekeeper.policy_set(fresh=True)
    assert (needed(kit)() or {})[IMAGE] == (f"order {order_digest(envelope)[7:19]}",)
    kit.decide(envelope, "stop")
    kit.until(lambda: kit.state(envelope) == "stopped")
    assert needed(kit)() == {}


def test_where_the_policies_are_not_known_it_is_not_known_what_is_needed(kit: StationKit) -> None:
    assert NeededImages(kit.runs, kit.clock)() is None
    refused = Refused.because(RefusalCode.TRUST_EXPIRED)
    assert NeededImages(kit.runs, kit.clock, lambda: refused)() is None
