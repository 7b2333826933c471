"""Everything the registry keeps in its database, on SQLite and on PostgreSQL: the same answers."""

from datetime import UTC, datetime

import pytest
from orchestrator_site import CONFIG, LAYER, MANIFEST, STATIONS, weights
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from statement_kit import digest, statement
from storage_kit import ALICE, Desk

from orchestrator.registry.access import Principal, Role
from orchestrator.registry.bundles import Bundles
from policies.documents import digest_of
from policies.errors import NotFoundError, RefusedError, TrustError, UsageError
from policies.station_statement import ChainEnd, EntryRange, Restoration, sign_statement
from policies.wire.http import key_fingerprint

BOB = Principal(Role.RESEARCHER, "bob")
AMSTEL = Principal(Role.STATION, "amstel")


def test_a_token_opens_until_it_is_revoked(desk: Desk) -> None:
    access = desk.services.access
    token, other = access.new_token(Role.BOARD, "secretary"), access.new_token(Role.BOARD, "another")
    assert access.by_token(token) == Principal(Role.BOARD, "secretary")
    assert access.revoke_tokens(Role.BOARD, "secretary") == 1
    with pytest.raises(TrustError):
        access.by_token(token)
    with pytest.raises(NotFoundError):
        access.revoke_tokens(Role.BOARD, "secretary")
    assert access.by_token(other).name == "another"


def test_moments_are_in_utc_wherever_the_database_is(desk: Desk) -> None:
    before = datetime.now(UTC)
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    (found,) = desk.services.bundles.all()
    assert found.created.tzinfo is UTC
    assert before <= found.created <= datetime.now(UTC)


def test_grants_are_given_once_and_hold(desk: Desk) -> None:
    access, blob = desk.services.access, desk.keep(b"bytes")
    desk.keep(b"bytes")
    assert access.may_read_blob(ALICE, blob.digest)
    assert not access.may_read_blob(BOB, blob.digest)
    desk.keep(b"bytes", owner=BOB)
    assert access.may_read_blob(BOB, blob.digest)
    assert not access.may_read_blob(AMSTEL, blob.digest)


def test_a_bundle_is_found_by_manifest_and_image(desk: Desk) -> None:
    bundles: Bundles = desk.services.bundles
    index = desk.index()
    assert bundles.put(ALICE, "trivial", "1.0.0", index.encode()) == index
    assert bundles.put(BOB, "trivial", "1.0.0", index.encode()) == index, "the same again changes nothing"
    assert bundles.by_manifest(digest_of(MANIFEST)) == bundles.by_image(digest_of(CONFIG)) == [index.encode()]
    assert [(view.name, view.owner) for view in bundles.all()] == [("trivial", "researcher:alice")]
    assert desk.services.access.may_read_blob(AMSTEL, digest_of(LAYER))
    changed = MANIFEST.replace(b"Adds a step", b"Adds a leap")
    with pytest.raises(UsageError, match="another manifest"):
        bundles.put(ALICE, "trivial", "1.0.0", desk.index(changed).encode())
    with pytest.raises(NotFoundError):
        bundles.by_image(digest_of(b"none"))


def test_what_a_party_keeps_is_counted_and_freed(desk: Desk) -> None:
    services, index = desk.services, desk.index()
    assert services.quotas.used(ALICE) == len(CONFIG) + len(LAYER) + len(MANIFEST)
    services.bundles.put(ALICE, "trivial", "1.0.0", index.encode())
    kept = services.quotas.used(ALICE)
    assert kept == len(CONFIG) + len(LAYER) + len(MANIFEST) + len(index.encode())
    spare = desk.keep(b"spare")
    assert services.keeping.holding(ALICE).used_bytes == kept + 5
    with pytest.raises(RefusedError, match="by a train"):
        services.keeping.remove(ALICE, digest_of(LAYER))
    services.keeping.remove(ALICE, spare.digest)
    assert services.quotas.used(ALICE) == kept
    assert services.quotas.used(BOB) == services.quotas.used(AMSTEL) == 0


def test_an_order_is_accepted_once_and_seen_by_its_parties(desk: Desk) -> None:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    weights_blob = desk.keep(weights())
    envelope = desk.order()
    accepted = desk.services.orders.accept(ALICE, envelope)
    assert max(accepted.nodes.values()) == 2**64 - 1
    for again in (envelope, desk.order(order_id=accepted.order.order_id)):
        with pytest.raises(RefusedError) as caught:
            desk.services.orders.accept(ALICE, again)
        assert caught.value.code == "ORDER_SPENT"
    access = desk.services.access
    assert list(access.orders_of(ALICE)) == list(access.orders_of(AMSTEL)) == [accepted.order_digest]
    assert list(access.orders_of(BOB)) == []
    assert access.is_party(AMSTEL, accepted.order_digest)
    assert access.may_read_blob(AMSTEL, weights_blob.digest)
    (run,) = desk.services.runs.all(ALICE)
    assert (run.digest, run.stations, run.requester) == (accepted.order_digest, STATIONS, "researcher:alice")


def test_the_newest_order_comes_first(desk: Desk) -> None:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    desk.keep(weights())
    given = [desk.services.orders.accept(ALICE, desk.order()).order_digest for _ in range(3)]
    assert list(desk.services.access.orders_of(ALICE)) == given[::-1]


def test_an_order_that_fails_leaves_nothing(desk: Desk) -> None:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    with pytest.raises(RefusedError, match="weights"):
        desk.services.orders.accept(ALICE, desk.order())
    assert desk.services.runs.all(ALICE) == []
    assert list(desk.services.home.runs.iterdir()) == []


def test_stations_follow_the_register(desk: Desk) -> None:
    stations = desk.services.stations
    assert [view.name for view in stations.all()] == sorted(STATIONS)
    fingerprint = key_fingerprint(desk.consortium.nodes["amstel"].public_key())
    assert stations.is_registered(fingerprint)
    assert desk.services.access.by_station_key(fingerprint) == AMSTEL
    assert not stations.is_registered(digest_of(b"other"))
    stations.saw(fingerprint)
    stations.flush(all_of_it=True)
    seen = {view.name: view.last_seen for view in stations.all()}
    assert seen["amstel"] is not None
    assert seen["berkel"] is None


def test_statements_stand_and_contradictions_stay_as_evidence(desk: Desk) -> None:
    statements, key = desk.services.statements, desk.consortium.identities["amstel"]

    def take(sequence: int, **changes: object) -> None:
        statements.take("amstel", sign_statement(statement(sequence, **changes), key))

    take(2)
    take(2)
    with pytest.raises(RefusedError) as caught:
        take(2, egress=ChainEnd(seq=10, digest=digest(999)))
    assert caught.value.code == "STATEMENT_FORK"
    with pytest.raises(RefusedError) as caught:
        take(1)
    assert caught.value.code == "STATEMENT_ROLLBACK"
    stated = statement(2)
    # Counters are as wide as the document allows: more than 32 bits.
    far = ChainEnd(seq=1 << 53, digest=digest(7))
    take(
        1 << 49,
        epoch=2,
        restored=Restoration(
            epoch=1,
            sequence=2,
            statement=stated.digest,
            lost_audit=EntryRange(first=21, last=20),
            lost_egress=EntryRange(first=11, last=10),
            reconciled=datetime(2026, 11, 22, tzinfo=UTC),
        ),
        audit=far,
        egress=far,
    )
    (view,) = statements.views()
    assert (view.forks, view.restorations, view.sequence, view.audit) == (2, 1, 1 << 49, 1 << 53)


@pytest.mark.parametrize("verb", ["DELETE FROM {}", "UPDATE {} SET station = 'other'"])
@pytest.mark.parametrize("table", ["statement_forks", "statement_restorations"])
def test_the_database_itself_keeps_evidence(desk: Desk, table: str, verb: str) -> None:
    test_statements_stand_and_contradictions_stay_as_evidence(desk)
    with (
        pytest.raises(IntegrityError, match="evidence stays"),
        desk.services.database.transaction() as session,
    ):
        session.execute(text(verb.format(table)))
    assert desk.services.statements.views()[0].forks == 2
