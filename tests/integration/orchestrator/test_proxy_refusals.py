"""The hospital's proxy and the ways in which it does not let a party through; each says what to do, and none shows the password."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import Board, Site, site, write_key
from proxy_kit import CREDENTIALS, PASSWORD, RealProxy, opening_proxy, real_proxy
from tool_kit import Tool

from orchestrator.registry.access import Role
from policies.errors import ExitCode, NetworkError, SettingsError
from policies.refusals import Refused
from policies.trust.client import PolicyClient
from policies.wire.instructions import Blob
from policies.wire.oci_auth import Credentials
from policies.wire.proxies import HELD_S, Proxy, ProxyError
from policies.wire.registry_client import RegistryClient
from station.agent import FleetConnection
from station.agent.blobs import BlobClient

WRONG = Credentials("hospital", "wr0ng-Geheim-9982")


@dataclass
class Place:
    site: Site
    proxy: RealProxy
    token: str
    key: Path

    def client(self, proxy: Proxy | None, ca: Path | None = None) -> RegistryClient:
        return RegistryClient(self.site.url, ca or self.site.ca, self.token, proxy=proxy)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("proxies")
    with site(folder) as found:
        key = write_key(ec.generate_private_key(ec.SECP256R1()), folder / "node.pem")
        token = found.services.access.new_token(Role.RESEARCHER, "alice")
        with real_proxy(folder / "proxy", found.services.settings.front.port) as proxy:
            yield Place(found, proxy, token, key)


def test_through_the_proxy_with_user_and_password(place: Place) -> None:
    before = len(place.proxy.asked())
    with place.client(Proxy(place.proxy.url, CREDENTIALS)) as client:
        assert client.runs() == []
        assert client.runs() == []
    # One tunnel, to the orchestrator alone.
    assert place.proxy.asked()[before:] == [place.site.url.removeprefix("https://")]


@pytest.mark.parametrize(
    ("credentials", "said"), [(None, "wants to know who asks"), (WRONG, "does not take this user name")]
)
def test_a_wrong_password_is_said_by_every_part_and_not_tried_again_at_once(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, credentials: Credentials | None, said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "board").mkdir()
    board = Board.found(tmp_path / "board")
    proxy = Proxy(place.proxy.url, credentials)
    before = len(place.proxy.asked())
    errors: list[BaseException] = []
    with place.client(proxy) as client, pytest.raises(ProxyError, match=said) as caught:
        client.runs()
    errors.append(caught.value)
    assert "credentials" in caught.value.hint
    fleet = FleetConnection(place.site.url, place.site.ca, place.key, proxy)
    with pytest.raises(ProxyError, match=said) as caught:
        fleet.activate()
    errors.append(caught.value)
    fleet.close()
    blobs = BlobClient(place.site.url, place.site.ca, _key(), proxy)
    with pytest.raises(ProxyError, match=said) as caught:
        blobs.fetch(Blob(digest="sha256:" + "0" * 64, size=1), tmp_path / "blob")
    errors.append(caught.value)
    blobs.close()
    PolicyClient.pin(tmp_path / "trust", board.root)
    mirror = f"{place.site.url}/api/v1/mirror"
    policies = PolicyClient(tmp_path / "trust", mirror, ca=place.site.ca, proxy=proxy)
    refused = policies.refresh(datetime.now(UTC))
    assert isinstance(refused, Refused)
    assert said in str(refused)
    # Four parts of one program asked, and the proxy was asked once: no account is locked by it.
    assert len(place.proxy.asked()) == before + 1
    for text in (caplog.text, *map(_whole, errors), repr(proxy), str(refused), place.proxy.log):
        assert WRONG.secret not in text
        assert PASSWORD not in text
        assert (credentials or WRONG).basic.partition(" ")[2] not in text


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _whole(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += repr(error) + str(error.__dict__)
        error = error.__cause__ or error.__context__
    return text


def test_a_proxy_that_refused_is_asked_again_after_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(place.proxy.url, WRONG)
    before = len(place.proxy.asked())
    with place.client(proxy) as client:
        for _ in range(3):
            with pytest.raises(ProxyError):
                client.runs()
        assert len(place.proxy.asked()) == before + 1
        now = time.monotonic()
        monkeypatch.setattr("policies.wire.proxies.time.monotonic", lambda: now + HELD_S + 1)
        with pytest.raises(ProxyError):
            client.runs()
    assert len(place.proxy.asked()) == before + 2


def test_an_address_that_the_proxy_does_not_allow(place: Place) -> None:
    elsewhere = RegistryClient(
        "https://localhost:9", place.site.ca, place.token, proxy=Proxy(place.proxy.url, CREDENTIALS)
    )
    with elsewhere as client, pytest.raises(ProxyError, match=r"\(403\)") as caught:
        client.runs()
    assert "host and port allowed" in caught.value.hint


def test_a_proxy_that_is_away_passes_by_itself(place: Place, tmp_path: Path) -> None:
    """Nobody answers there: a fault of the network, tried again, and no word of the password."""
    with real_proxy(tmp_path / "gone", place.site.services.settings.front.port) as gone:
        proxy = Proxy(gone.url, CREDENTIALS)
        with place.client(proxy) as client:
            assert client.runs() == []
            gone.kill()
            with pytest.raises(NetworkError) as caught:
                client.runs()
            assert not isinstance(caught.value, ProxyError)
            gone.start()
            assert client.runs() == []


def test_the_tool_takes_proxy_and_password_from_its_profile(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, secret, token = (tmp_path / name for name in ("pht-train.toml", "secret", "token"))
    token.write_text(place.token)
    secret.write_text(f"{CREDENTIALS.user}:{PASSWORD}\n")
    secret.chmod(0o600)

    def written(**changes: str) -> Path:
        keys = {"to": place.site.url, "token_file": "token", "ca": str(place.site.ca), "proxy": place.proxy.url,
                "proxy_credentials_file": "secret"} | changes  # fmt: skip
        profile.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items()))
        return profile

    tool = Tool(capsys)
    before = len(place.proxy.asked())
    assert tool.json("runs", "--profile", written()) == []
    assert len(place.proxy.asked()) == before + 1
    inside = place.proxy.url.replace("http://", f"http://{CREDENTIALS.user}:{PASSWORD}@")
    said = tool.error(ExitCode.DOCUMENT, "runs", "--profile", written(proxy=inside))
    assert "proxy_credentials_file" in said
    assert PASSWORD not in said
    secret.write_text(f"{WRONG.user}:{WRONG.secret}")
    said = tool.error(ExitCode.UNAVAILABLE, "runs", "--profile", written())
    assert "does not take this user name and password" in " ".join(said.split())
    assert WRONG.secret not in said
    secret.chmod(0o644)
    assert "others may read it" in tool.error(ExitCode.DOCUMENT, "runs", "--profile", profile)
    secret.write_text("onlyatoken")
    secret.chmod(0o600)
    with pytest.raises(SettingsError, match="no user name"):
        Proxy.read(place.proxy.url, secret, None, "a file")


def test_a_hospital_that_opens_tls_is_trusted_by_its_authority_in_the_same_file(
    place: Place, tmp_path: Path
) -> None:
    both, ended = tmp_path / "both.pem", tmp_path / "ended.pem"
    with opening_proxy(place.site.ca) as opening:
        with place.client(opening.proxy()) as client, pytest.raises(NetworkError, match="does not answer"):
            client.runs()
        own = opening.authority.cert_pem.bytes()
        both.write_bytes(own + place.site.ca.read_bytes())
        with place.client(opening.proxy(), both) as client:
            assert client.runs() == []
        assert opening.heads[-1].startswith(b"GET /api/v1/runs")
        fleet = FleetConnection(place.site.url, both, place.key, opening.proxy())
        # Past TLS: the node's key is not of the register here.
        with pytest.raises(NetworkError, match="does not accept this node's key"):
            fleet.activate()
        fleet.close()
        foreign = trustme.CA().cert_pem.bytes()
        ended.write_bytes(foreign + b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        with pytest.raises(Exception, match="PEM") as caught:
            place.client(opening.proxy(), ended)
        assert type(caught.value).__module__ == "policies.errors"


def test_a_proxy_whose_own_address_is_https(place: Place, tmp_path: Path) -> None:
    with opening_proxy(place.site.ca, itself_tls=True) as opening:
        authority = tmp_path / "proxy-ca.pem"
        opening.authority.cert_pem.write_to_path(str(authority))
        with place.client(opening.proxy(authority)) as client:
            assert client.runs() == []
        with place.client(opening.proxy()) as client, pytest.raises(NetworkError):
            client.runs()
