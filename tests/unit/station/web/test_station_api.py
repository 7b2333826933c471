"""The operator's local API over a real Unix socket, on a real station's state; and how its client reads what goes wrong."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from local_api_kit import served, short_folder
from station_kit import StationKit, in_the_middle, order_digest

from policies.errors import (
    ExitCode,
    NotFoundError,
    PhtError,
    RefusedError,
    StorageError,
    TrustError,
    UnavailableError,
    UsageError,
)
from station.evidence.collecting import EvidenceCollector
from station.runs.chains import Chains
from station.runs.desk import StationDesk
from station.web.api import create_api
from station.web.client import LocalApi
from station.web.server import listening

TOKEN = "t" * 64
NOBODY = "sha256:" + "0" * 64


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = StationKit.make(tmp_path)
    yield made
    made.close()


@pytest.fixture
def desk(kit: StationKit) -> StationDesk:
    chains = Chains("amstel", kit.database, Ed25519PrivateKey.generate(), kit.clock, kit.paths.work)
    agent: Any = SimpleNamespace(last_contact=1_760_000_000.0)
    launcher: Any = kit.launcher
    return StationDesk(
        kit.settings, kit.gatekeeper, kit.catalogue, kit.runs, kit.warm, kit.releases, kit.audit, chains, launcher, agent,
        EvidenceCollector("amstel", kit.database, chains.identity, kit.paths.trust),
    )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as name:
        yield name


@pytest.fixture
def socket(desk: StationDesk, folder: Path) -> Iterator[Path]:
    path = folder / "api.sock"
    (folder / "api.token").write_text(TOKEN + "\n")
    with served(create_api(desk, TOKEN), path):
        yield path


@pytest.fixture
def api(socket: Path) -> Iterator[LocalApi]:
    client = LocalApi(socket, socket.parent / "api.token")
    yield client
    client._client.close()


@pytest.fixture
def raw(socket: Path) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://station") as client:
        yield client


def routes() -> list[tuple[str, str]]:
    nobody: Any = None
    app = create_api(nobody, TOKEN)
    found = [
        (method, route.path.replace("{order}", NOBODY).replace("{chain}", "audit"))  # type: ignore[attr-defined]
        for route in app.routes
        for method in sorted(route.methods)  # type: ignore[attr-defined]
    ]
    return [*found, ("GET", "/"), ("GET", "/nothing"), ("POST", "/v1/status")]


def test_every_route_is_known_to_this_test() -> None:
    paths = {path for _, path in routes()}
    assert {"/docs", "/openapi.json", "/v1/status", f"/v1/runs/{NOBODY}/stop"} <= paths
    assert len(paths) >= 14


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}"],
)
def test_nothing_answers_without_the_token(raw: httpx.Client, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in routes():
        response = raw.request(method, path, headers=headers)
        assert response.status_code == 403, (method, path)
        assert response.headers["content-type"] == "application/problem+json"
        if method != "HEAD":
            assert response.json()["code"] == "TokenError"
            assert "amstel" not in response.text


def test_a_token_of_odd_bytes_is_no_crash(raw: httpx.Client) -> None:
    response = raw.get("/v1/status", headers={"Authorization": "Bearer é".encode("latin-1")})  # type: ignore[dict-item]
    assert response.status_code == 403


def test_with_the_token_the_documentation_is_there(api: LocalApi) -> None:
    paths = api.get("/openapi.json")["paths"]
    assert "/v1/runs/{order}/approve" in paths
    assert "application/problem+json" not in json.dumps(paths), "no other error shape is promised"


def test_status(api: LocalApi, kit: StationKit) -> None:
    kit.ready()
    view = api.get("/v1/status")
    assert view == {
        "station": "amstel", "orchestrator_contact": datetime.fromtimestamp(1_760_000_000, UTC).isoformat().replace("+00:00", "Z"),
        "engine": "simulated 1", "gpus": "none are offered", "policies": "verified", "policy_count": 1, "consent_sequence": 1,
        "consent_source": view["consent_source"], "handover": "taken up", "runs_active": 1, "separation": "none", "records": "good",
    }  # fmt: skip


def test_status_answers_whatever_is_broken(api: LocalApi, kit: StationKit) -> None:
    kit.launcher.away = True
    kit.clock.forward(days=3)
    kit.intake.consent(p0="objection")
    last = max(path for path in (kit.intake.folder / "log").rglob("*") if path.is_file() and path.suffix)
    last.write_bytes(last.read_bytes()[:-10])
    view = api.get("/v1/status")
    assert view["engine"] == "the container engine does not answer"
    assert view["policies"] == "TRUST_EXPIRED"
    assert view["handover"] != "taken up"
    assert api.get("/v1/catalogue")[0]["name"] == "chest-radiographs"


def test_runs_releases_and_words(api: LocalApi, kit: StationKit) -> None:
    envelope = kit.ready()
    digest = order_digest(envelope)
    kit.message(envelope)
    (run,) = api.get("/v1/runs")
    assert (run["order"], run["state"], run["rounds"], run["releases"]) == (digest, "ready", 2, 1)
    assert run["title"].startswith("Pneumonia")
    (release,) = api.get("/v1/releases")
    assert (release["metrics"], release["stage"], release["round"]) == ({"loss": 0.5}, "train", 1)
    assert api.get_bytes(f"/v1/runs/{digest}/logs") == b"what the train printed"
    held = api.post(f"/v1/runs/{digest}/hold", {"actor": "j.smit"})
    assert (held["state"], held["operator"]) == ("held", "held")
    rules = {rule["rule"]: rule for rule in api.get(f"/v1/runs/{digest}/explain")}
    assert rules["operator"]["reasons"] == [{"code": "HOSPITAL_HELD", "detail": ""}]
    assert rules["time"]["verdict"] == "yes"
    assert api.post(f"/v1/runs/{digest}/approve", {"actor": "j.smit"})["state"] == "preparing"
    assert api.post(f"/v1/runs/{digest}/stop", {"actor": "j.smit"})["state"] == "stopped"
    with pytest.raises(UsageError, match="cannot happen"):
        api.post(f"/v1/runs/{digest}/stop", {"actor": "j.smit"})
    actors = {
        item.record.actor
        for item in kit.audit.events(limit=1000)
        if item.record.actor.startswith("operator:")
    }
    assert actors == {"operator:j.smit", "operator:desk"}, (
        "who decides is named; who reads the log is at the desk"
    )


def test_an_operators_name_of_odd_characters_still_stops(api: LocalApi, kit: StationKit) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope):
        view = api.post(f"/v1/runs/{order_digest(envelope)}/stop", {"actor": "Zoë van 't Hof\n" + "x" * 80})
    assert view["state"] == "stopped"
    events = [item.record for item in kit.audit.events(limit=1000) if item.record.event == "operator-stopped"]
    assert events[0].actor == "operator:Zo__van__t_Hof_" + "x" * 80


def test_chains_are_verified_and_exported(api: LocalApi, kit: StationKit) -> None:
    kit.message(kit.ready())
    for chain in ("audit", "egress"):
        view = api.get(f"/v1/chains/{chain}")
        assert (view["intact"], view["chain"]) == (True, chain)
        lines = api.get_bytes(f"/v1/chains/{chain}/export").splitlines()
        assert len(lines) > view["entries"]
    assert kit.events().count("audit-exported") == 2
    with pytest.raises(PhtError):
        api.get("/v1/chains/other")


@pytest.mark.parametrize("path", ["explain", "logs"])
def test_an_unknown_order_is_not_found(api: LocalApi, raw: httpx.Client, path: str) -> None:
    with pytest.raises(NotFoundError):
        api.get(f"/v1/runs/{NOBODY}/{path}")
    for word in ("approve", "hold", "stop"):
        with pytest.raises(NotFoundError):
            api.post(f"/v1/runs/{NOBODY}/{word}", {"actor": "a"})
    response = raw.get(f"/v1/runs/{NOBODY}/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    body = response.json()
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert body == {
        "type": "urn:pht:error:NotFoundError", "title": "no such order at this station", "status": 404,
        "detail": "`pht-station runs` lists them.", "code": "NotFoundError", "exit_code": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"{", b'{"actor": ""}', b'{"actor": 1}', b'{"actor": "a", "x": 1}']
)
def test_a_word_that_is_none_is_a_problem_and_quotes_nothing(
    raw: httpx.Client, kit: StationKit, body: bytes
) -> None:
    envelope = kit.ready()
    response = raw.post(
        f"/v1/runs/{order_digest(envelope)}/stop", content=body,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )  # fmt: skip
    assert response.status_code == 422
    assert set(response.json()) == {"type", "title", "status", "detail", "code", "exit_code"}
    assert kit.state(envelope) == "ready"


def test_addresses_and_methods_that_are_not_there(raw: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("POST", "/v1/status", 405),
        ("DELETE", "/v1/runs", 405),
    ):
        response = raw.request(method, path, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (
            status,
            "application/problem+json",
        )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageError("the disk is full"), 507),
        (UnavailableError("no engine"), 503),
        (RefusedError("POLICY_REVOKED", "withdrawn"), 403),
        (PhtError("ours"), 500),
        (RuntimeError("Jansen^Piet"), 500),
    ],
)
def test_faults_of_the_station_are_problems(
    raw: httpx.Client, desk: StationDesk, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(_self: object) -> None:
        raise error

    monkeypatch.setattr(StationDesk, "releases", fail)
    response = raw.get("/v1/releases", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert "Jansen" not in response.text


def test_the_client_says_what_is_missing(folder: Path, socket: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be read"):
        LocalApi(socket, folder / "no.token")
    with pytest.raises(UnavailableError, match="compute service does not answer"):
        LocalApi(folder / "none" / "api.sock", folder / "api.token")
    (folder / "wrong.token").write_text("x")
    client = LocalApi(socket, folder / "wrong.token")
    with pytest.raises(TrustError) as caught:
        client.get("/v1/status")
    assert caught.value.exit_code is ExitCode.TRUST
    client._client.close()
    (folder / "file.sock").write_text("")
    with pytest.raises(TrustError, match="not the socket"):
        LocalApi(folder / "file.sock", folder / "api.token")


def test_the_socket_is_its_owners_alone_and_goes_with_its_server(tmp_path: Path) -> None:
    with listening(tmp_path / "a.sock"):
        assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "a.sock").exists()
    with pytest.raises(UnavailableError), listening(tmp_path / "nowhere" / "a.sock"):
        pass
