"""Attack: publish in the board's name, take a policy back to an older state, or write outside the mirror."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from orchestrator_site import Board, Site, policy_yaml, site, station_keys

from orchestrator.registry.access import Role
from policies.errors import NotFoundError, TrustError, UsageError, WireError
from policies.files import exclusive_lock, write_atomically
from policies.refusals import Permitted
from policies.trust.client import PolicyClient
from policies.wire.registry_client import RegistryClient


@pytest.fixture
def board(tmp_path: Path) -> Board:
    found = Board.found(tmp_path)
    found.set_register(station_keys())
    found.add_policy(policy_yaml("ab" * 32))
    return found


@pytest.fixture
def place(tmp_path: Path, board: Board) -> Iterator[Site]:
    with site(tmp_path, board.root) as found:
        board.publish(
            f"{found.url}/api/v1/mirror", found.services.access.new_token(Role.BOARD, "secretary"), found.ca
        )
        yield found


def test_a_station_verifies_what_the_board_published(place: Site, board: Board, tmp_path: Path) -> None:
    PolicyClient.pin(tmp_path / "trust", board.root)
    client = PolicyClient(tmp_path / "trust", f"{place.url}/api/v1/mirror", ca=place.ca)
    result = client.refresh(datetime.now(UTC))
    assert isinstance(result, Permitted)
    assert isinstance(result.value.find("trivial", 1), Permitted)
    assert result.value.register is not None


def _timestamp(client: RegistryClient) -> bytes:
    return client.get_metadata("timestamp.json")


def test_the_witness_writes_the_timestamp_and_nothing_else(place: Site, board: Board) -> None:
    witness = place.client(Role.WITNESS, "witness")
    board.witness.sign_once(datetime.now(UTC))
    fresh = (board.folder / "repository" / "metadata" / "timestamp.json").read_bytes()
    witness.put_metadata("timestamp.json", fresh)
    assert _timestamp(witness) == fresh
    for name in ("1.root.json", "2.root.json", "9.snapshot.json", "9.targets.json", "root.json"):
        with pytest.raises(TrustError):
            witness.put_metadata(name, fresh)
    with pytest.raises(TrustError):
        witness.put_target("stations.dsse.json", b"{}")


@pytest.mark.parametrize("role", [Role.RESEARCHER, Role.OPERATOR, None])
def test_others_write_nothing(place: Site, role: Role | None) -> None:
    client = place.client(role)
    with pytest.raises(TrustError):
        client.put_metadata("timestamp.json", _timestamp(client))
    with pytest.raises(TrustError):
        client.put_target("policies/x/1.dsse.json", b"{}")


def test_the_timestamp_never_goes_back(place: Site, board: Board) -> None:
    client = place.client(Role.BOARD)
    old = _timestamp(client)
    board.witness.sign_once(datetime.now(UTC))
    client.put_metadata("timestamp.json", (board.folder / "repository/metadata/timestamp.json").read_bytes())
    with pytest.raises(UsageError, match="back"):
        client.put_metadata("timestamp.json", old)


def test_of_two_timestamps_at_once_the_newer_stays(
    place: Site, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one has been found newer than what is there, and is about to be written, when the newer one comes."""
    mirror, path = place.services.mirror, board.folder / "repository" / "metadata" / "timestamp.json"
    board.witness.sign_once(datetime.now(UTC))
    older = path.read_bytes()
    board.witness.sign_once(datetime.now(UTC))
    newer = path.read_bytes()
    looked, written = threading.Event(), threading.Event()

    def write(target: Path, data: bytes) -> None:
        if data == older:
            looked.set()
            # Long enough for the newer one to be written where it does not wait for its turn.
            written.wait(1.0)
        write_atomically(target, data)
        if data == newer:
            written.set()

    monkeypatch.setattr("orchestrator.registry.mirror.write_atomically", write)
    first = threading.Thread(target=mirror.put_metadata, args=("timestamp.json", older))
    first.start()
    assert looked.wait(60)
    mirror.put_metadata("timestamp.json", newer)
    first.join(60)
    assert mirror.metadata("timestamp.json").read_bytes() == newer


def test_a_published_version_never_changes(place: Site, board: Board) -> None:
    client = place.client(Role.BOARD)
    root = client.get_metadata("1.root.json")
    client.put_metadata("1.root.json", root)
    with pytest.raises(UsageError, match="would change"):
        client.put_metadata("1.root.json", root + b"\n")


@pytest.mark.parametrize("name", ["2.root.json", "3.snapshot.json", "timestamp.json"])
def test_a_name_holds_its_own_role_and_version(place: Site, name: str) -> None:
    client = place.client(Role.BOARD)
    with pytest.raises(UsageError, match="holds"):
        client.put_metadata(name, client.get_metadata("1.root.json"))


@pytest.mark.parametrize(
    "path",
    [
        "../state.db",
        "policies/../../state.db",
        ".hidden",
        "a//b",
        "policies/.new",
        "a/b/c/d/e/f/g",
        "x\\y",
        "%2e%2e/x",
    ],
)
def test_no_target_path_leaves_the_mirror(place: Site, path: str) -> None:
    token = place.services.access.new_token(Role.BOARD, "b")
    with place.raw(Authorization=f"Bearer {token}") as raw:
        answer = raw.put(f"/api/v1/mirror/targets/{path}", content=b"attack")
        assert answer.status_code in {400, 404, 405}
    files = [file for file in place.home.path.rglob("*") if file.is_file()]
    assert [file for file in files if file.read_bytes() == b"attack"] == []


@pytest.mark.parametrize("name", ["../x.json", "x.txt", "1..root.json", "01.root.json", "Root.json", ".json"])
def test_no_metadata_name_is_anything_else(place: Site, name: str) -> None:
    token = place.services.access.new_token(Role.BOARD, "b")
    with place.raw(Authorization=f"Bearer {token}") as raw:
        assert raw.put(f"/api/v1/mirror/metadata/{name}", content=b"{}").status_code in {400, 404, 405}
        assert raw.get(f"/api/v1/mirror/metadata/{name}").status_code in {400, 404, 405}


def test_what_is_no_metadata_is_refused(place: Site) -> None:
    client = place.client(Role.BOARD)
    for data in (b"", b"[]", b"{", b'{"signed": {"_type": "root"}}', b'{"signed": 1}'):
        with pytest.raises((UsageError, WireError)):
            client.put_metadata("2.root.json", data)
    with pytest.raises(NotFoundError):
        client.get_metadata("2.root.json")


def test_a_mirror_that_was_tampered_with_on_disk_gives_no_stations(place: Site, board: Board) -> None:
    place.services.stations.sync_quietly()
    stations_before = place.services.stations.all()
    assert [view.name for view in stations_before] == ["amstel", "berkel", "dommel"]
    # What a publication starts in the background may be at it, and would write down what it read before.
    with exclusive_lock(place.home.run / "sync.lock"):
        for target in place.home.mirror.rglob("*stations.dsse.json"):
            target.write_bytes(target.read_bytes().replace(b"a", b"b", 1))
        (place.home.trust / "verified.json").unlink(missing_ok=True)
    with pytest.raises(TrustError):
        place.services.stations.sync()
    assert place.services.stations.all() == stations_before
