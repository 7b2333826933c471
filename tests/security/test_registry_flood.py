"""Attack: flood the API without a proof, with guesses, or with one's own token. Honest parties go on, memory and audit stay small."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import Board, Site, site, station_keys

from orchestrator.registry.access import Access, Role
from orchestrator.registry.audit import SEVERAL, THINNED_PER_HOUR
from policies.wire.http import EMPTY_DIGEST, KEY_HEADER, sign_request

# So slow that nothing comes back while a test runs, however long that takes.
NEVER = 1e-4
LIMITS = {
    "address_per_s": NEVER, "address_burst": 30.0, "refused_per_s": NEVER, "refused_burst": 10.0,
    "principal_per_s": NEVER, "principal_burst": 60.0,
}  # fmt: skip


@dataclass
class World:
    place: Site
    http: httpx.Client
    keys: dict[str, ec.EllipticCurvePrivateKey]

    def token(self, role: Role, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.place.services.access.new_token(role, name)}"}

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.http.get(f"/api/v1{path}", headers=headers)

    def as_station(self, name: str, path: str) -> httpx.Response:
        return self.get(
            path, sign_request(self.keys[name], "GET", f"/api/v1{path}", EMPTY_DIGEST, now=time.time())
        )


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("flood")
    board, keys = Board.found(folder), station_keys()
    board.set_register(keys)
    with site(folder, board.root, **LIMITS) as place:
        # As a folder: what a board sends is not what is counted here.
        board.publish(place.home.mirror)
        place.services.stations.sync_quietly()
        with place.raw() as http:
            yield World(place, http, keys)


def test_a_flood_without_a_proof_is_told_when_to_come_back_and_keeps_nobody_out(world: World) -> None:
    alice = world.token(Role.RESEARCHER, "alice")
    assert world.get("/whoami", alice).status_code == 200
    statuses = [world.get("/health").status_code for _ in range(50)]
    assert statuses.count(200) <= 30
    refused = world.get("/mirror/metadata/timestamp.json")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["code"] == "TooManyRequestsError"
    # From the same address: who was known, and every station of the register, known or not.
    assert world.get("/whoami", alice).status_code == 200
    for name in world.keys:
        assert world.as_station(name, "/whoami").status_code == 200
    # A garbage proof does not open what is open to all.
    assert world.get("/health", {"Authorization": "Bearer x"}).status_code == 429


def test_guesses_are_slowed_before_they_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    by_token = Access.by_token
    monkeypatch.setattr(
        Access, "by_token", lambda self, token: (looked.append(token), by_token(self, token))[1]
    )
    alice = world.token(Role.RESEARCHER, "alice")
    assert world.get("/whoami", alice).status_code == 200
    looked.clear()
    answers = [world.get("/whoami", {"Authorization": f"Bearer pht_{number:064x}"}) for number in range(40)]
    assert {answer.status_code for answer in answers[:10]} == {401}
    assert {answer.status_code for answer in answers[11:]} == {429}
    assert len(looked) <= 11
    assert world.get("/whoami", alice).status_code == 200
    assert world.as_station("berkel", "/whoami").status_code == 200
    # Even the right token, if it was never seen: that is what slowing down guesses costs who shares the address.
    assert world.get("/whoami", world.token(Role.RESEARCHER, "new")).status_code == 429


def test_a_stations_public_key_beside_a_guess_does_not_hurry_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    by_token = Access.by_token
    monkeypatch.setattr(
        Access, "by_token", lambda self, token: (looked.append(token), by_token(self, token))[1]
    )
    shown = sign_request(world.keys["amstel"], "GET", "/api/v1/whoami", EMPTY_DIGEST, now=time.time())
    assert world.get("/whoami", shown).status_code == 200
    for number in range(40):
        world.get("/whoami", {"Authorization": f"Bearer pht_{number:064x}", KEY_HEADER: shown[KEY_HEADER]})
    assert len(looked) <= 11
    # With a signature as well it is no token's either, and no station's.
    both = shown | {"Authorization": "Bearer pht_x"}
    assert world.get("/whoami", both).status_code == 429
    assert world.as_station("amstel", "/whoami").status_code == 200


def test_a_station_whose_signatures_fail_does_not_slow_its_neighbours(world: World) -> None:
    for _ in range(25):
        headers = sign_request(world.keys["amstel"], "GET", "/api/v1/other", EMPTY_DIGEST, now=time.time())
        assert world.get("/whoami", headers).status_code in {401, 429}
    assert world.get("/whoami", world.token(Role.RESEARCHER, "new")).status_code == 200


def test_a_stations_key_in_the_hands_of_others_does_not_shut_it_out(world: World) -> None:
    for _ in range(80):
        headers = sign_request(world.keys["amstel"], "GET", "/api/v1/other", EMPTY_DIGEST, now=time.time())
        assert world.get("/whoami", headers).status_code in {401, 429}
    assert world.as_station("amstel", "/whoami").status_code == 200


def test_one_token_is_bounded_and_no_other_with_it(world: World) -> None:
    mallory = world.token(Role.RESEARCHER, "mallory")
    second = world.token(Role.RESEARCHER, "mallory")
    statuses = [world.get("/whoami", mallory).status_code for _ in range(70)]
    assert statuses == [200] * 60 + [429] * 10
    assert world.get("/whoami", second).status_code == 429, "one party, whatever token it shows"
    assert world.get("/whoami", world.token(Role.RESEARCHER, "alice")).status_code == 200


def test_refused_proofs_do_not_fill_the_audit(world: World) -> None:
    before = world.place.services.audit.head().seq
    for number in range(60):
        world.get("/whoami", {"Authorization": f"Bearer {number}"})
    assert world.place.services.audit.head().seq - before <= THINNED_PER_HOUR
    world.place.services.audit.flush(all_of_it=True)
    events = [one.event for one in world.place.services.audit.page(before)[0]]
    assert {(event.action, event.outcome, event.code) for event in events} == {
        ("proof-refused", "refused", "token")
    }
    # All that were looked at are counted.
    assert len(events) + sum(event.more for event in events) >= 10
    assert {(event.who, event.about) for event in events} == {("address 127.0.0.1", "GET /whoami")}


def test_refused_orders_do_not_fill_the_audit_and_hide_nobody(world: World) -> None:
    mallory = world.token(Role.RESEARCHER, "mallory")
    audit = world.place.services.audit
    before = audit.head().seq
    for number in range(20):
        answer = world.http.post("/api/v1/orders", content=f"junk {number}".encode(), headers=mallory)
        assert answer.is_client_error, answer.text
    assert audit.head().seq - before == THINNED_PER_HOUR
    audit.flush(all_of_it=True)
    last = audit.page(before)[0][-1].event
    assert (last.who, last.about, last.more) == ("researcher:mallory", SEVERAL, 20 - THINNED_PER_HOUR)


def test_a_thousand_names_are_not_remembered_for_ever(world: World) -> None:
    gate = world.place.services.gate
    for number in range(50_000):
        gate.arrived(f"2001:db8:{number:x}::/64")
    assert gate.remembered() <= 40_000
