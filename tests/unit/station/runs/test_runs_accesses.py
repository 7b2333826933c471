"""What was done with the data of a cohort, as the audit has it: for whom, why, what left; of these orders and no others."""

from station_kit import StationKit, order_digest

from station.audit import AuditEvent
from station.runs.accesses import AccessDesk, AccessesRequest, CohortUse
from station.runs.usage import UsageRecords
from station.usage_list import read_usage_list


def asked(*uses: CohortUse) -> AccessesRequest:
    return AccessesRequest(actor="j.smit", uses=uses)


def test_each_use_with_its_requester_purpose_and_release(kit: StationKit) -> None:
    mine, other = kit.ready(), kit.ready()
    kit.message(mine)
    kit.message(other)
    prepared = kit.warm._prepared
    digest, elsewhere = order_digest(mine), order_digest(other)
    cohort = prepared[digest].cohort.digest
    found = AccessDesk(kit.audit).accesses(asked(CohortUse(order=digest, cohort=cohort)))
    assert {event.order for event in found} == {digest}
    events = [event.event for event in found]
    assert events == ["cohort-frozen", "container-started", "data-used", "release-recorded"]
    policy = prepared[digest].admitted.verified.in_force.policy
    assert {event.purpose for event in found} == {policy.purpose.code.value}
    (behalf,) = {event.on_behalf_of for event in found}
    assert behalf is not None
    assert behalf.startswith("requester:")
    assert [event.time for event in found] == sorted(event.time for event in found)
    assert (
        AccessDesk(kit.audit).accesses(asked(CohortUse(order=elsewhere, cohort="sha256:" + "0" * 64)))
        != found
    )


def test_that_it_was_shown_is_audited_and_by_whom(kit: StationKit) -> None:
    assert AccessDesk(kit.audit).accesses(asked()) == []
    last = kit.audit.events()[-1].record
    assert (last.event, last.actor) == (AuditEvent.ACCESSES_SHOWN, "operator:j.smit")


def test_the_usage_list_names_what_is_asked(kit: StationKit) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    envelope = kit.ready()
    kit.message(envelope)
    key = Ed25519PrivateKey.generate()
    usage = read_usage_list(
        UsageRecords("amstel", kit.database, kit.audit, key, kit.clock).export(), key.public_key()
    )
    uses = [CohortUse(order=use.order, cohort=use.cohort) for use in usage.uses]
    events = [event.event for event in AccessDesk(kit.audit).accesses(asked(*uses))]
    assert "data-used" in events
    assert "release-recorded" in events
