"""Attack: from a station's place on the network, reach the SuperLink's Control and Runtime APIs through the front."""

import base64
import http.client
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import Board, Site, site, station_keys

from orchestrator.federation.superlink import FLEET_ROUTES, SuperLink
from orchestrator.registry.access import Role
from orchestrator.registry.superlink_port import write_superlink_port
from policies.tls import client_context

pytestmark = pytest.mark.superlink

OTHERS = (
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/control/stop-run",
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/get-nodes",
    "/v1/runtime/push-app-messages",
    "/v1/responses",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-fab",
    "/v1/fleet",
    "/v1/fleet/",
    "/health",
    "/openapi.json",
    "/docs",
    "/",
)
SPELLINGS = (
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/api/v1/../../v1/control/list-runs",
    "/api/v1/%2e%2e/%2e%2e/v1/control/list-runs",
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/V1/control/list-runs",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet/pull-messages;/v1/control/list-runs",
    "/v1/fleet/pull-messages?x=/v1/control/list-runs",
    "/v1/fleet/pull%2Dmessages",
    "https://127.0.0.1/v1/control/list-runs",
)


def proof(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """What a station shows; Flower takes it for five minutes."""
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    moment = datetime.now(UTC).isoformat()
    signature = key.sign(moment.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "flwr-public-key": base64.b64encode(pem).decode(),
        "flwr-timestamp": moment,
        "flwr-signature": base64.b64encode(signature).decode(),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, str]]]:
    """A front with a real SuperLink behind it, and the headers of a registered station."""
    folder: Path = tmp_path_factory.mktemp("front")
    board, keys = Board.found(folder), station_keys()
    board.set_register(keys)
    with site(folder, board.root) as found:
        superlink = SuperLink(found.home.superlink, restart=False)
        superlink.start()
        write_superlink_port(found.home, superlink.port)
        try:
            board.publish(
                f"{found.url}/api/v1/mirror", found.services.access.new_token(Role.BOARD, "s"), found.ca
            )
            assert found.services.stations.sync_quietly()
            yield found, proof(keys["amstel"])
        finally:
            superlink.stop()


def _ask(site_: Site, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> int:
    """Send a request target as it is: httpx would normalise it."""
    host, _, port = site_.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=client_context(site_.ca), timeout=60)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("target", OTHERS)
def test_everything_but_the_fleet_routes_is_404(
    place: tuple[Site, dict[str, str]], method: str, target: str
) -> None:
    found, headers = place
    assert _ask(found, method, target, headers | {"Content-Type": "application/x-protobuf"}) == 404


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_of_a_path_gets_around_it(place: tuple[Site, dict[str, str]], target: str) -> None:
    found, headers = place
    assert _ask(found, "POST", target, headers) in {400, 404}


@pytest.mark.parametrize("target", sorted(FLEET_ROUTES))
def test_fleet_routes_are_for_post_only(place: tuple[Site, dict[str, str]], target: str) -> None:
    found, headers = place
    assert _ask(found, "GET", target, headers) == 404


def test_a_key_outside_the_register_gets_no_further(place: tuple[Site, dict[str, str]]) -> None:
    found, _ = place
    assert _ask(found, "POST", "/v1/fleet/pull-messages", proof(station_keys()["amstel"])) == 401
    assert _ask(found, "POST", "/v1/fleet/pull-messages", {}) == 401
    assert _ask(found, "POST", "/v1/fleet/pull-messages", {"flwr-public-key": "%%%"}) == 401


@pytest.mark.parametrize("target", sorted(FLEET_ROUTES))
def test_showing_a_registered_key_without_its_signature_is_refused_before_the_body(
    place: tuple[Site, dict[str, str]], target: str
) -> None:
    found, headers = place
    only_key = {"flwr-public-key": headers["flwr-public-key"]}
    strangers = proof(station_keys()["amstel"]) | only_key
    for shown in (only_key, strangers):
        host, _, port = found.url.removeprefix("https://").partition(":")
        connection = http.client.HTTPSConnection(
            host, int(port), context=client_context(found.ca), timeout=60
        )
        try:
            connection.putrequest("POST", target)
            # A body that is never sent: nobody waits for it.
            for name, value in {**shown, "Content-Length": "1000"}.items():
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status == 401
        finally:
            connection.close()
    assert found.services.stations.all()[0].last_seen is None


def test_what_a_station_signed_reaches_the_superlink(place: tuple[Site, dict[str, str]]) -> None:
    found, headers = place
    headers = headers | {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}
    # A poll without a node: Flower's answer to it, as its 401 has a body and ours has none.
    host, _, port = found.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=client_context(found.ca), timeout=60)
    try:
        connection.request("POST", "/v1/fleet/pull-messages", b"", headers)
        answer = connection.getresponse()
        assert answer.status != 503
        assert answer.read()
    finally:
        connection.close()


def test_a_body_over_the_ceiling_is_refused(place: tuple[Site, dict[str, str]]) -> None:
    found, headers = place
    host, _, port = found.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=client_context(found.ca), timeout=60)
    try:
        connection.putrequest("POST", "/v1/fleet/push-object")
        for name, value in {**headers, "Content-Length": str(5 << 20)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_a_superlink_that_is_down_is_503_and_comes_back(place: tuple[Site, dict[str, str]]) -> None:
    found, headers = place
    port = (found.home.run / "superlink.port").read_text("ascii")
    write_superlink_port(found.home, 9)
    try:
        assert _ask(found, "POST", "/v1/fleet/pull-messages", headers) == 503
    finally:
        write_superlink_port(found.home, int(port))
    assert _ask(found, "POST", "/v1/fleet/pull-messages", headers) != 503


def test_old_tls_is_refused(place: tuple[Site, dict[str, str]]) -> None:
    found, _ = place
    host, _, port = found.url.removeprefix("https://").partition(":")
    context = client_context(found.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    connection.request("GET", "/api/v1/health")
    assert connection.getresponse().status == 200
    connection.close()
