"""What is done over the API is in the orchestrator's audit, with its effect or before it; and when stations were last seen."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import (
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
from request_documents import request_signed
from sqlalchemy import select

from orchestrator.registry.access import Role
from orchestrator.registry.audit import Audit, AuditEvent
from orchestrator.storage import StationRow
from policies.errors import RefusedError, StorageError
from policies.refusals import Permitted
from policies.signing import Signer, generate_key, load_signer
from policies.wire.http import key_fingerprint
from policies.wire.registry_client import RegistryClient


@dataclass
class World:
    place: Site
    board: Board
    requester: Signer
    policy: str
    alice: RegistryClient
    keys: dict[str, ec.EllipticCurvePrivateKey]

    def events(self) -> list[AuditEvent]:
        return [one.event for one in self.place.services.audit.page()[0]]

    def said(self, action: str) -> list[tuple[str, str, str]]:
        return [(one.who, one.outcome, one.code) for one in self.events() if one.action == action]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    board, keys = Board.found(tmp_path), station_keys()
    generate_key(tmp_path / "requester.pem")
    requester = load_signer(tmp_path / "requester.pem")
    board.set_register(keys)
    policy = board.add_policy(policy_yaml(requester.public_hex))
    with site(tmp_path, board.root) as place:
        token = place.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{place.url}/api/v1/mirror", token, place.ca)
        place.services.stations.sync_quietly()
        with place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        alice = place.client(Role.RESEARCHER, "alice")
        send_bundle(alice, tmp_path)
        send(alice, tmp_path, weights())
        yield World(place, board, requester, policy, alice, keys)


def test_all_that_changed_anything_is_in_the_audit(world: World) -> None:
    alice = world.alice
    request = alice.requests.submit(request_signed(world.requester)).id
    digest = alice.post_order(signed_order(world.requester, world.policy, weights()))
    with pytest.raises(RefusedError):
        alice.post_order(signed_order(world.requester, world.policy, weights(), rounds=11))
    alice.stop_run(digest)
    alice.requests.get(request)
    world.place.services.requests.follow(at_once=True)
    assert ("command line" in world.said("token-made")[0][0]) is True
    assert {who for who, _, _ in world.said("mirror-published")} == {"board:secretary"}
    assert {outcome for _, outcome, _ in world.said("mirror-published")} == {"begun"}
    assert world.said("register-followed") == [("board's register", "done", "")]
    # Config, layer, manifest and weights; sent again they change nothing.
    assert world.said("blob-stored") == [("researcher:alice", "done", "")] * 4
    send(alice, world.board.folder, weights())
    assert len(world.said("blob-stored")) == 4
    assert world.said("bundle-accepted") == [("researcher:alice", "done", "")]
    assert world.said("order-accepted") == [("researcher:alice", "done", "")]
    assert world.said("order-refused") == [("researcher:alice", "refused", "ORDER_BEYOND_POLICY")]
    assert world.said("run-stopped") == [("researcher:alice", "begun", "")]
    assert world.said("request-submitted") == [("researcher:alice", "done", "")]
    assert [who for who, _, _ in world.said("request-changed")] == ["board's mirror", "orders"]
    assert isinstance(world.place.services.audit.verify(), Permitted)


def test_what_cannot_be_recorded_does_not_happen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    order = signed_order(world.requester, world.policy, weights())
    digest = world.alice.post_order(signed_order(world.requester, world.policy, weights()))
    stamp = (world.place.home.mirror / "metadata" / "timestamp.json").read_bytes()
    before = len(world.alice.requests.all())
    secretary = world.place.client(Role.BOARD, "another")
    world.board.witness.sign_once(datetime.now(UTC))
    fresh = (world.board.folder / "repository" / "metadata" / "timestamp.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Audit, "append_in", full)
        for attempt in (
            lambda: world.alice.post_order(order),
            lambda: world.alice.stop_run(digest),
            lambda: world.alice.requests.submit(request_signed(world.requester)),
            lambda: send(world.alice, world.board.folder, b"other weights"),
            lambda: world.place.client(Role.BOARD, "b"),
            lambda: world.place.services.access.revoke_tokens(Role.BOARD, "secretary"),
            lambda: secretary.put_metadata("timestamp.json", fresh),
        ):
            with pytest.raises(StorageError):
                attempt()
    assert len(world.alice.runs()) == 1
    assert not (world.place.home.run_folder(digest) / "stop").exists()
    assert len(world.alice.requests.all()) == before
    assert (world.place.home.mirror / "metadata" / "timestamp.json").read_bytes() == stamp
    assert world.alice.post_order(order)


def test_the_auditor_reads_it_a_page_at_a_time(world: World) -> None:
    token = world.place.services.access.new_token(Role.AUDITOR, "eva")
    with world.place.raw(Authorization=f"Bearer {token}") as http:
        seen, after = [], 0
        while True:
            page = http.get(f"/api/v1/audit?after={after}&limit=7").json()
            if not page["entries"]:
                break
            assert len(page["entries"]) <= 7
            seen += page["entries"]
            after = page["next"]
    head = world.place.services.audit.head()
    assert [entry["seq"] for entry in seen] == list(range(1, head.seq + 1))
    assert (page["head_seq"], page["head_digest"]) == (head.seq, head.digest)
    assert seen[-1]["digest"] == head.digest
    assert world.said("role-refused") == []


def test_a_station_is_seen_when_it_proves_its_key_and_not_before(world: World) -> None:
    def listed() -> dict[str, dict[str, object]]:
        token = world.place.services.access.new_token(Role.OPERATOR, "op")
        with world.place.raw(Authorization=f"Bearer {token}") as http:
            return {entry["name"]: entry for entry in http.get("/api/v1/stations").json()}

    assert all(entry["last_seen"] is None for entry in listed().values())
    started = datetime.now(UTC) - timedelta(seconds=1)
    assert world.place.station(world.keys["amstel"]).runs is not None
    world.place.station(world.keys["amstel"]).has_blob("sha256:" + "0" * 64)
    # Only who has the key: a stranger's signature under it is no sign of life.
    with world.place.raw(**{"PHT-Signature": "AAAA", "PHT-Key": "AAAA"}) as http:
        assert http.get("/api/v1/whoami").status_code == 401
    found = listed()
    seen = datetime.fromisoformat(str(found["amstel"]["last_seen"]))
    assert started <= seen <= datetime.now(UTC)
    assert found["berkel"]["last_seen"] is None
    assert found["amstel"]["register_version"] == 1
    assert found["amstel"]["registered"] is True


def test_a_heartbeat_is_a_write_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stations, count = world.place.services.stations, [0]
    transaction = type(world.place.services.database).transaction

    def counted(self: object) -> object:
        count[0] += 1
        return transaction(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(world.place.services.database), "transaction", counted)
    prints = [key_fingerprint(key.public_key()) for key in world.keys.values()]
    for _ in range(2000):
        for fingerprint in prints:
            stations.saw(fingerprint)
    # One at the start, and one for every ten seconds that a busy machine takes for this.
    assert count[0] <= 20
    assert all(view.last_seen is not None for view in stations.all())
    stations.flush(all_of_it=True)
    with world.place.services.database.reading() as session:
        assert all(row.last_seen is not None for row in session.scalars(select(StationRow)))


def test_the_table_of_stations_shows_what_is_known(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrator.cli import app
    from policies.console import run

    world.place.station(world.keys["dommel"]).has_blob("sha256:" + "0" * 64)
    world.place.services.stations.flush(all_of_it=True)
    assert run(app, ["station", "list", str(world.place.home.path), "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["dommel"]["last_seen"] is not None
    assert found["amstel"]["last_seen"] is None
    assert {entry["register_version"] for entry in found.values()} == {1}
    assert run(app, ["station", "list", str(world.place.home.path)]) == 0
    shown = capsys.readouterr().out
    assert "version 1" in shown
    assert "never" in shown
