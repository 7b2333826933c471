"""Orders over real HTTPS: what the orchestrator refuses with the stations' own codes, and who sees a run."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import (
    STATIONS,
    Board,
    Site,
    policy_yaml,
    send,
    send_bundle,
    signed_order,
    site,
    station_keys,
    weights,
)
from sqlalchemy import select

from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.federation.updates import update_path
from orchestrator.registry.access import Role
from orchestrator.registry.blobs import BlobStore
from orchestrator.results.folder import PROVENANCE, result_folder
from orchestrator.storage import StationRow
from policies.documents import digest_of, format_moment
from policies.errors import NotFoundError, RefusedError, TrustError, UsageError
from policies.signing import Signer, generate_key, load_signer
from policies.wire.http import sign_request
from policies.wire.registry_client import RegistryClient


@dataclass
class World:
    place: Site
    board: Board
    requester: Signer
    policy_digest: str
    alice: RegistryClient
    keys: dict[str, ec.EllipticCurvePrivateKey]
    folder: Path

    def order(self, **changes: object) -> bytes:
        digest = str(changes.pop("policy_digest", self.policy_digest))
        return signed_order(self.requester, digest, weights(), **changes)

    def refused(self, envelope: bytes) -> str:
        with pytest.raises(RefusedError) as found:
            self.alice.post_order(envelope)
        return found.value.code


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    board, keys = Board.found(tmp_path), station_keys()
    generate_key(tmp_path / "requester.pem")
    requester = load_signer(tmp_path / "requester.pem")
    board.set_register(keys)
    policy_digest = board.add_policy(policy_yaml(requester.public_hex))
    with site(tmp_path, board.root) as place:
        token = place.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{place.url}/api/v1/mirror", token, place.ca)
        place.services.stations.sync_quietly()
        # No SuperLink runs behind this site: the node ids it would give are written by hand.
        with place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        alice = place.client(Role.RESEARCHER, "alice")
        send_bundle(alice, tmp_path)
        send(alice, tmp_path, weights())
        yield World(place, board, requester, policy_digest, alice, keys, tmp_path)


def test_an_order_is_queued_with_what_the_run_worker_needs(world: World) -> None:
    envelope = world.order()
    digest = world.alice.post_order(envelope)
    folder = FolderQueue(world.place.home.runs).folder(digest)
    accepted = folder.read_order()
    assert accepted.envelope.encode() == envelope
    assert accepted.manifest.name == "trivial"
    assert sorted(accepted.nodes) == sorted(STATIONS)
    status = world.alice.get_run(digest)
    assert (status.progress.state, status.progress.rounds, status.requester) == ("queued", 2, "alice")


def test_an_order_is_queued_once(world: World) -> None:
    envelope = world.order()
    world.alice.post_order(envelope)
    assert world.refused(envelope) == "ORDER_SPENT"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"policy_version": 2}, "POLICY_MISSING"),
        ({"policy_id": "other"}, "POLICY_MISSING"),
        ({"policy_digest": digest_of(b"other")}, "POLICY_DIGEST"),
        ({"manifest_digest": digest_of(b"other")}, "MANIFEST_DIGEST"),
        ({"image_config_digest": digest_of(b"other")}, "IMAGE_DIGEST"),
        ({"rounds": 11}, "ORDER_BEYOND_POLICY"),
        ({"hyperparameters": {"step": 9.0}}, "ORDER_CONFIG"),
        ({"hyperparameters": {"stride": 1.0}}, "ORDER_CONFIG"),
        ({"stages": ["evaluate"]}, "ORDER_KIND"),
        ({"stations": [*STATIONS, "elsewhere"]}, "STATION_NOT_REGISTERED"),
        ({"initial_weights": {"digest": digest_of(b"not sent"), "size": 8}}, "ORDER_WEIGHTS"),
        (
            {
                "issued": format_moment(datetime.now(UTC) - timedelta(days=2)),
                "expires": format_moment(datetime.now(UTC) - timedelta(days=1)),
            },
            "ORDER_EXPIRED",
        ),
    ],
)
def test_what_stations_would_refuse_is_refused_here(
    world: World, changes: dict[str, object], code: str
) -> None:
    assert world.refused(world.order(**changes)) == code
    assert world.alice.runs() == []
    assert list(world.place.home.runs.iterdir()) == []


def test_another_key_than_the_policys_orders_nothing(world: World) -> None:
    generate_key(world.folder / "mallory.pem")
    mallory = load_signer(world.folder / "mallory.pem")
    assert world.refused(signed_order(mallory, world.policy_digest, weights())) == "ORDER_SIGNATURE"


def test_a_revoked_policy_orders_nothing(world: World) -> None:
    world.board.repository.revoke("trivial", 1, "the agreement ended", now=datetime.now(UTC))
    token = world.place.services.access.new_token(Role.BOARD, "secretary")
    world.board.publish(f"{world.place.url}/api/v1/mirror", token, world.place.ca)
    assert world.refused(world.order()) == "POLICY_REVOKED"


def test_a_withdrawn_requester_orders_nothing(world: World) -> None:
    key = world.requester.public_hex
    world.board.repository.revoke_requester(key, "the key was stolen", now=datetime.now(UTC))
    token = world.place.services.access.new_token(Role.BOARD, "secretary")
    world.board.publish(f"{world.place.url}/api/v1/mirror", token, world.place.ca)
    assert world.refused(world.order()) == "REQUESTER_REVOKED"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"payload": "x", "payloadType": "y", "signatures": []}']
)
def test_what_is_no_order_is_refused_and_nothing_is_left(world: World, data: bytes) -> None:
    with pytest.raises((UsageError, TrustError)):
        world.alice.post_order(data)
    assert list(world.place.home.runs.iterdir()) == []


def test_naming_weights_of_somebody_else_opens_nothing(world: World) -> None:
    bob = world.place.client(Role.RESEARCHER, "bob")
    with pytest.raises(RefusedError) as found:
        bob.post_order(world.order())
    assert found.value.code == "ORDER_WEIGHTS"
    assert not bob.has_blob(digest_of(weights()))


def test_a_run_is_its_partys_business(world: World) -> None:
    digest = world.alice.post_order(world.order())
    bob = world.place.client(Role.RESEARCHER, "bob")
    assert bob.runs() == []
    for attempt in (bob.get_run, bob.stop_run, bob.events):
        with pytest.raises(NotFoundError):
            attempt(digest)
    with pytest.raises(TrustError):
        world.place.station(world.keys["amstel"]).get_run(digest)
    assert [run.digest for run in world.place.client(Role.BOARD, "b").runs()] == [digest]


def test_weights_of_a_run_are_read_by_its_parties_only(world: World) -> None:
    digest = world.alice.post_order(world.order(stations=["amstel", "berkel", "dommel"]))
    place, blob = world.place, digest_of(weights())
    for name in STATIONS:
        assert place.station(world.keys[name]).has_blob(blob)
    assert not place.client(Role.RESEARCHER, "bob").has_blob(blob)
    assert not place.client(Role.BOARD, "b").has_blob(blob)
    # The next round's weights, as the run worker leaves them.
    fresh = b"average of round 1"
    (place.home.blobs / "sha256" / digest_of(fresh)[7:]).write_bytes(fresh)
    station = place.station(world.keys["amstel"])
    assert not station.has_blob(digest_of(fresh))
    folder = FolderQueue(place.home.runs).folder(digest)
    folder.write_json("checkpoint.json", {"weights": {"digest": digest_of(fresh), "size": len(fresh)}})
    station.get_blob(digest_of(fresh), world.folder / "fetched")
    assert not place.client(Role.RESEARCHER, "bob").has_blob(digest_of(fresh))


def test_a_release_stays_between_its_station_and_the_orchestrator(world: World) -> None:
    digest = world.alice.post_order(world.order())
    stations = {name: world.place.station(world.keys[name]) for name in STATIONS}
    release = send(stations["amstel"], world.folder, b"update of amstel", order=digest)
    assert stations["amstel"].has_blob(release.digest)
    for other in (stations["berkel"], world.alice, world.place.client(Role.BOARD, "b")):
        assert not other.has_blob(release.digest)
    kept = update_path(world.place.home.blobs, digest, "amstel", release.digest)
    assert kept.read_bytes() == b"update of amstel"
    stations["amstel"].get_blob(release.digest, world.folder / "back")
    assert (world.folder / "back").read_bytes() == b"update of amstel"
    # Apart from what others sent, under whatever name.
    assert not (world.place.home.blobs / "sha256" / release.digest[7:]).exists()


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.FAILED, RunState.STOPPED])
def test_an_order_that_is_over_takes_no_releases(world: World, state: RunState) -> None:
    digest = world.alice.post_order(world.order())
    station = world.place.station(world.keys["amstel"])
    folder = FolderQueue(world.place.home.runs).folder(digest)
    folder.write_progress(RunProgress(state=state, rounds=2, round=1))
    with pytest.raises(UsageError, match="takes no releases"):
        send(station, world.folder, b"too late", order=digest)
    target = f"/api/v1/blobs/{digest_of(b'too late')}?order={digest}"
    signed = sign_request(world.keys["amstel"], "PUT", target, digest_of(b"too late"), now=time.time())
    with world.place.raw(**signed) as raw:
        answer = raw.put(target, content=b"too late")
    assert (answer.status_code, answer.json()["code"]) == (409, "ORDER_OVER")
    assert not list(world.place.home.blobs.glob("updates/*/*/*"))
    folder.write_progress(RunProgress(state=RunState.QUEUED, rounds=2, round=1))
    assert station.has_blob(send(station, world.folder, b"again", order=digest).digest)


def test_a_release_whose_order_ends_while_it_is_sent_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = world.alice.post_order(world.order())
    folder = FolderQueue(world.place.home.runs).folder(digest)
    place = BlobStore.place

    def ends_first(*given: Any) -> None:
        folder.write_progress(RunProgress(state=RunState.FAILED, rounds=2, round=1))
        place(*given)

    monkeypatch.setattr(BlobStore, "place", ends_first)
    with pytest.raises(UsageError, match="takes no releases"):
        send(world.place.station(world.keys["amstel"]), world.folder, b"just too late", order=digest)
    assert not list(world.place.home.blobs.glob("updates/*/*/*"))


def test_a_station_uploads_for_its_own_orders_only(world: World) -> None:
    digest = world.alice.post_order(world.order())
    station = world.place.station(world.keys["amstel"])
    with pytest.raises(TrustError):
        send(station, world.folder, b"for nothing")
    with pytest.raises(TrustError):
        send(station, world.folder, b"for another", order=digest_of(b"another order"))
    assert digest


def struck_off(world: World) -> None:
    world.board.set_register({name: world.keys[name] for name in ("amstel", "berkel")}, version=2)


def withdrawn(world: World) -> None:
    world.board.repository.revoke_station("dommel", "it left", now=datetime.now(UTC))


@pytest.mark.parametrize("out", [struck_off, withdrawn])
def test_a_station_struck_off_the_register_or_withdrawn_is_out(
    world: World, out: Callable[[World], None]
) -> None:
    station = world.place.station(world.keys["dommel"])
    assert not station.has_blob(digest_of(b"x"))
    out(world)
    token = world.place.services.access.new_token(Role.BOARD, "secretary")
    world.board.publish(f"{world.place.url}/api/v1/mirror", token, world.place.ca)
    world.place.services.stations.sync_quietly()
    with pytest.raises(TrustError):
        station.has_blob(digest_of(b"x"))


def test_events_come_as_rounds_end_and_when_the_result_is_complete(world: World) -> None:
    digest = world.alice.post_order(world.order())
    folder = FolderQueue(world.place.home.runs).folder(digest)
    first = world.alice.events(digest)
    assert (first.events, first.progress.state) == ([], "queued")
    folder.write_rounds([{"round": 1, "took_part": list(STATIONS)}])
    second = world.alice.events(digest, first.next, first.mark)
    assert [event["round"] for event in second.events] == [1]
    folder.write_progress(RunProgress(state=RunState.FINISHED, rounds=2, round=2))
    third = world.alice.events(digest, second.next, second.mark)
    assert third.progress.is_over
    result = result_folder(folder.path)
    result.mkdir()
    (result / PROVENANCE).write_text(json.dumps({"_type": "x"}))
    status = world.alice.wait_run(digest, 20)
    assert status.result == [PROVENANCE]
    world.alice.get_result_file(digest, PROVENANCE, world.folder / "out")
    assert (world.folder / "out").read_text() == '{"_type": "x"}'


def test_more_rounds_than_one_answer_carries_come_in_several(world: World) -> None:
    digest = world.alice.post_order(world.order())
    folder = FolderQueue(world.place.home.runs).folder(digest)
    # Thirty rounds of half a megabyte: more than a client reads at once.
    folder.write_rounds([{"round": number, "pad": "x" * (1 << 19)} for number in range(1, 31)])
    folder.write_progress(RunProgress(state=RunState.FAILED, rounds=30, round=30))
    seen: list[list[int]] = []
    status = world.alice.wait_run(
        digest, 60, lambda news: seen.append([event["round"] for event in news.events])
    )
    assert len(seen) > 1
    assert [number for batch in seen for number in batch] == list(range(1, 31))
    assert status.rounds[-1]["round"] == 30


def test_the_requester_stops_a_run(world: World) -> None:
    digest = world.alice.post_order(world.order())
    world.alice.stop_run(digest)
    assert FolderQueue(world.place.home.runs).folder(digest).stop_wanted()


def test_the_result_is_the_requesters(world: World) -> None:
    digest = world.alice.post_order(world.order())
    folder = FolderQueue(world.place.home.runs).folder(digest)
    folder.write_progress(RunProgress(state=RunState.FINISHED, rounds=2, round=2))
    result = result_folder(folder.path)
    result.mkdir()
    (result / PROVENANCE).write_text("{}")
    with world.place.raw(
        Authorization=f"Bearer {world.place.services.access.new_token(Role.BOARD, 'b')}"
    ) as raw:
        assert raw.get(f"/api/v1/runs/{digest}/result/{PROVENANCE}").status_code == 403
    with world.place.raw(
        Authorization=f"Bearer {world.place.services.access.new_token(Role.RESEARCHER, 'alice')}"
    ) as raw:
        assert raw.get(f"/api/v1/runs/{digest}/result/{PROVENANCE}").status_code == 200
        assert raw.get(f"/api/v1/runs/{digest}/result/..%2Forder.json").status_code == 404


def test_a_stale_mirror_takes_no_order(tmp_path: Path) -> None:
    board = Board.found(tmp_path)
    with site(tmp_path, board.root) as place:
        generate_key(tmp_path / "requester.pem")
        envelope = signed_order(load_signer(tmp_path / "requester.pem"), digest_of(b"p"), weights())
        with pytest.raises(UsageError, match="does not verify"):
            place.client(Role.RESEARCHER).post_order(envelope)


def test_the_model_of_a_run_is_its_requesters_to_start_from(world: World) -> None:
    first = world.alice.post_order(world.order())
    model = weights().replace(b"layer", b"LAYER")
    (world.place.home.blobs / "sha256" / digest_of(model)[7:]).write_bytes(model)
    blob = {"digest": digest_of(model), "size": len(model)}
    assert world.refused(world.order(initial_weights=blob)) == "ORDER_WEIGHTS"
    FolderQueue(world.place.home.runs).folder(first).write_json("checkpoint.json", {"weights": blob})
    second = world.alice.post_order(world.order(initial_weights=blob))
    assert world.place.station(world.keys["amstel"]).has_blob(digest_of(model))
    assert {run.digest for run in world.alice.runs()} == {first, second}
