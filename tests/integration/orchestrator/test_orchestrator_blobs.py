"""Blobs over real HTTPS: who may read what, resumption, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from orchestrator_site import MANIFEST, Board, Site, send, send_bundle, site, station_keys

from orchestrator.registry.access import Role
from policies.documents import digest_of
from policies.errors import NotFoundError, TrustError, UsageError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as found:
        yield found


def test_a_blob_is_read_back_by_its_sender_only(place: Site, tmp_path: Path) -> None:
    alice, bob = place.client(Role.RESEARCHER, "alice"), place.client(Role.RESEARCHER, "bob")
    blob = send(alice, tmp_path, b"weights" * 50_000)
    alice.get_blob(blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"weights" * 50_000
    assert not bob.has_blob(blob.digest)
    with pytest.raises(NotFoundError):
        bob.get_blob(blob.digest, tmp_path / "stolen")


def test_who_sends_the_same_bytes_may_read_them_too(place: Site, tmp_path: Path) -> None:
    send(place.client(Role.RESEARCHER, "alice"), tmp_path, b"same")
    bob = place.client(Role.RESEARCHER, "bob")
    send(bob, tmp_path, b"same")
    assert bob.has_blob(digest_of(b"same"))


def test_a_range_continues_a_download(place: Site, tmp_path: Path) -> None:
    alice = place.client(Role.RESEARCHER)
    data = bytes(range(256)) * 1000
    blob = send(alice, tmp_path, data)
    (tmp_path / "back.part").write_bytes(data[:1234])
    alice.get_blob(blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert not (tmp_path / "back.part").exists()


def test_a_damaged_partial_download_is_not_taken_for_the_blob(place: Site, tmp_path: Path) -> None:
    alice = place.client(Role.RESEARCHER)
    blob = send(alice, tmp_path, b"0123456789" * 100)
    (tmp_path / "back.part").write_bytes(b"xxxx")
    with pytest.raises(Exception, match="not the one"):
        alice.get_blob(blob.digest, tmp_path / "back")
    alice.get_blob(blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"0123456789" * 100


def test_an_upload_goes_on_where_it_stopped(place: Site, tmp_path: Path) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "alice")
    data = bytes(range(256)) * 4000
    path = tmp_path / "data"
    path.write_bytes(data)
    digest = digest_of(data)
    with place.raw(Authorization=f"Bearer {token}") as raw:
        url = f"/api/v1/blobs/{digest}"
        half = raw.put(url, content=data[:5000], headers={"Content-Range": f"bytes 0-4999/{len(data)}"})
        assert (half.status_code, half.json()["complete"]) == (201, False)
        assert raw.head(url).headers["PHT-Received"] == "5000"
        gap = raw.put(
            url, content=data[6000:], headers={"Content-Range": f"bytes 6000-{len(data) - 1}/{len(data)}"}
        )
        assert gap.status_code == 400
    client = place.with_token(token)
    assert client.put_blob(path).complete
    client.get_blob(digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_bytes_that_are_not_the_digest_leave_nothing(place: Site, tmp_path: Path) -> None:
    alice = place.client(Role.RESEARCHER)
    path = tmp_path / "data"
    path.write_bytes(b"other bytes")
    with pytest.raises(UsageError):
        alice.put_blob(path, digest=digest_of(b"these bytes"))
    assert not list((place.home.blobs / "partial").iterdir())
    assert not list((place.home.blobs / "sha256").iterdir())


def test_a_blob_over_the_ceiling_is_refused_before_it_is_read(place: Site) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "alice")
    with place.raw(Authorization=f"Bearer {token}") as raw:
        url = f"/api/v1/blobs/{digest_of(b'')}"
        answer = raw.put(url, content=b"x", headers={"Content-Range": f"bytes 0-0/{65 << 20}"})
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("role", [Role.BOARD, Role.WITNESS, Role.OPERATOR])
def test_only_researchers_and_stations_send_blobs(place: Site, tmp_path: Path, role: Role) -> None:
    with pytest.raises(TrustError):
        send(place.client(role), tmp_path, b"x")


def test_without_proof_of_identity_nothing_is_served(place: Site, tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        place.client().has_blob(digest_of(b"x"))
    with pytest.raises(TrustError):
        place.with_token("pht_" + "0" * 64).has_blob(digest_of(b"x"))
    with pytest.raises(TrustError):
        place.station(station_keys()["amstel"]).has_blob(digest_of(b"x"))


def test_a_withdrawn_token_is_out(place: Site) -> None:
    alice = place.client(Role.RESEARCHER, "alice")
    assert not alice.has_blob(digest_of(b"x"))
    place.services.access.revoke_tokens(Role.RESEARCHER, "alice")
    with pytest.raises(TrustError):
        alice.has_blob(digest_of(b"x"))


def test_a_bundle_opens_its_blobs_to_registered_stations(tmp_path: Path) -> None:
    board, keys = Board.found(tmp_path), station_keys()
    board.set_register(keys)
    with site(tmp_path, board.root) as place:
        board.publish(
            f"{place.url}/api/v1/mirror", place.services.access.new_token(Role.BOARD, "secretary"), place.ca
        )
        place.services.stations.sync_quietly()
        index = send_bundle(place.client(Role.RESEARCHER), tmp_path)
        station = place.station(keys["berkel"])
        assert station.find_bundle(index.config.digest) == index
        assert station.find_bundles_of(index.manifest.digest) == [index]
        station.get_blob(index.layers[0].digest, tmp_path / "layer")
        with pytest.raises(TrustError):
            place.station(station_keys()["berkel"]).find_bundle(index.config.digest)


def test_an_index_opens_no_blob_of_somebody_else(place: Site, tmp_path: Path) -> None:
    secret = send(place.client(Role.RESEARCHER, "alice"), tmp_path, b"alice's weights")
    bob = place.client(Role.RESEARCHER, "bob")
    index = send_bundle(bob, tmp_path)
    stolen = index.model_copy(update={"layers": (secret,)})
    with pytest.raises(UsageError, match="not here yet"):
        bob.put_bundle("trivial", "1.0.0", stolen)
    assert not bob.has_blob(secret.digest)


def test_a_name_and_version_never_change(place: Site, tmp_path: Path) -> None:
    alice = place.client(Role.RESEARCHER)
    index = send_bundle(alice, tmp_path)
    send_bundle(alice, tmp_path)
    other = send(alice, tmp_path, MANIFEST.replace(b"A Person", b"B Person"))
    with pytest.raises(UsageError, match="here already"):
        alice.put_bundle("trivial", "1.0.0", index.model_copy(update={"manifest": other}))
