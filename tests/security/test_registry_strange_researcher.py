"""Attack: a researcher looks at another's request, moves it, or asks as somebody they are not."""

from collections.abc import Iterator

import httpx
import pytest
from orchestrator_site import Board, Site, send_bundle, site, station_keys
from request_documents import new_signer, request_signed

from orchestrator.registry.access import Role
from policies.errors import NotFoundError, TrustError
from policies.wire.registry_client import RegistryClient


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("strange")
    board = Board.found(folder)
    keys = station_keys()
    board.set_register(keys)
    with site(folder, board.root) as found:
        board.publish(
            f"{found.url}/api/v1/mirror", found.services.access.new_token(Role.BOARD, "s"), found.ca
        )
        found.services.stations.sync_quietly()
        send_bundle(found.client(Role.RESEARCHER, "alice"), folder)
        yield found


@pytest.fixture(scope="module")
def request_id(place: Site) -> str:
    signer = new_signer(place.home.path.parent)
    return place.client(Role.RESEARCHER, "alice").requests.submit(request_signed(signer)).id


def _raw(place: Site, token: str, method: str, path: str, **headers: str) -> httpx.Response:
    with place.raw(Authorization=f"Bearer {token}", **headers) as http:
        return http.request(method, f"/api/v1{path}")


def test_anothers_request_is_as_absent_as_none(place: Site, request_id: str) -> None:
    mallory = place.services.access.new_token(Role.RESEARCHER, "mallory")
    for method, path in (
        ("GET", "/requests/{}"), ("GET", "/requests/{}/history"), ("POST", "/requests/{}/withdraw"),
    ):  # fmt: skip
        there = _raw(place, mallory, method, path.format(request_id))
        none = _raw(place, mallory, method, path.format("0" * 32))
        assert there.status_code == none.status_code == 404
        assert there.content == none.content
    assert _raw(place, mallory, "GET", "/requests").json() == []
    assert _raw(place, mallory, "GET", "/requests?state=submitted&offset=0&limit=500").json() == []


def test_neither_a_station_nor_the_witness_sees_requests(place: Site, request_id: str) -> None:
    for client in (place.client(Role.WITNESS, "w"), place.station(station_keys()["amstel"])):
        for call in (client.requests.all, lambda one=client: one.requests.get(request_id)):
            with pytest.raises(TrustError):
                call()


def test_a_researcher_of_the_same_name_as_a_member_of_the_board_is_no_member(
    place: Site, request_id: str
) -> None:
    place.services.access.new_token(Role.BOARD, "alice")
    alice = place.client(Role.RESEARCHER, "alice")
    with pytest.raises(TrustError, match="not for the role researcher"):
        alice.requests.take_up(request_id)
    board_alice = place.client(Role.BOARD, "alice")
    with pytest.raises(TrustError, match="not for the role board"):
        board_alice.requests.withdraw(request_id)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Role": "board"},
        {"PHT-Role": "operator"},
        {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"},
        {"X-HTTP-Method-Override": "GET", "X-Original-URL": "/api/v1/audit"},
        {"Cookie": "role=board"},
    ],
)
def test_no_header_makes_a_researcher_more(place: Site, request_id: str, headers: dict[str, str]) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "mallory")
    for method, path in (
        ("GET", "/audit"), ("GET", "/stations/statements"), ("POST", f"/requests/{request_id}/review"),
        ("POST", f"/requests/{request_id}/decline"), ("PUT", "/mirror/metadata/timestamp.json"),
    ):  # fmt: skip
        assert _raw(place, token, method, path, **headers).status_code == 403


def test_two_proofs_at_once_are_none(place: Site) -> None:
    board = place.services.access.new_token(Role.BOARD, "b")
    with place.raw() as http:
        both = [("Authorization", f"Bearer {board}"), ("PHT-Signature", "AAAA")]
        assert http.get("/api/v1/whoami", headers=both).status_code == 401
        mallory = place.services.access.new_token(Role.RESEARCHER, "mallory")
        twice = [("Authorization", f"Bearer {mallory}"), ("Authorization", f"Bearer {board}")]
        answer = http.get("/api/v1/whoami", headers=twice)
        assert answer.status_code == 401 or answer.json()["role"] == "researcher"


def test_what_a_researcher_was_refused_is_in_the_audit(place: Site, request_id: str) -> None:
    eve = place.client(Role.RESEARCHER, "eve")
    with pytest.raises(TrustError):
        eve.requests.take_up(request_id)
    with pytest.raises(NotFoundError):
        eve.requests.get(request_id)
    after = 0
    found = []
    while (page := place.services.audit.page(after))[0]:
        found += [one.event for one in page[0] if one.event.who == "researcher:eve"]
        after = page[0][-1].seq
    assert [(one.action, one.outcome) for one in found if one.action == "role-refused"] == [
        ("role-refused", "refused")
    ]
    assert "/requests/{id}/review" in found[-1].about


def test_a_revoked_token_is_out_at_its_next_request(place: Site) -> None:
    client: RegistryClient = place.client(Role.RESEARCHER, "leaving")
    assert client.requests.all() == []
    place.services.access.revoke_tokens(Role.RESEARCHER, "leaving")
    with pytest.raises(TrustError):
        client.requests.all()
