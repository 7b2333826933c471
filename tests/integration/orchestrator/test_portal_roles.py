"""The README's table of routes and roles, held against the API: every route is asked as every role, and as nobody."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchestrator_site import Board, Site, site, station_keys

from orchestrator.registry.access import Role
from policies.wire.http import EMPTY_DIGEST, sign_request

README = Path(__file__).parents[3] / "orchestrator" / "README.md"
TABLE = README.read_text("utf-8").split("## The API, and who may call it")[1].split("\n## ")[0]
ROLES = tuple(role.value for role in Role)
NOBODY = "anyone"
STATION = "amstel"
PARAMETERS = {
    "digest": "sha256:" + "0" * 64,
    "run": "sha256:" + "0" * 64,
    "id": "0" * 32,
    "name": STATION,
    "version": "1.0.0",
    "path": "written/by-the-test",
}
STATUS: dict[str, int | dict[str, int]] = {
    # A station says for which order; without one it may not.
    "PUT /blobs/{digest}": {"researcher": 400, "station": 403},
    "HEAD /blobs/{digest}": 404,
    "GET /blobs/{digest}": 404,
    "DELETE /blobs/{digest}": 404,
    "PUT /bundles/{name}/{version}": 422,
    "GET /bundles/by-image/{digest}": 404,
    "GET /bundles/by-manifest/{digest}": 404,
    "GET /bundles/manifests/{digest}": 404,
    "GET /mirror/metadata/{name}": 404,
    "GET /mirror/targets/{path}": 404,
    "PUT /mirror/metadata/{name}": 422,
    "PUT /mirror/targets/{path}": 204,
    "POST /requests": 422,
    "GET /requests/{id}": 404,
    "GET /requests/{id}/history": 404,
    "GET /requests/{id}/envelope": 404,
    "POST /requests/{id}/review": 404,
    "POST /requests/{id}/decline": 422,
    "POST /requests/{id}/withdraw": 404,
    "POST /orders": 422,
    "GET /orders/{digest}": 404,
    "GET /runs/{digest}": 404,
    "GET /runs/{digest}/events": 404,
    "POST /runs/{digest}/stop": 404,
    "POST /runs/{digest}/resume": 404,
    "GET /runs/{digest}/result/{name}": 404,
    "GET /runs/{digest}/mirror-report": 404,
    "PUT /stations/{name}/statement": 422,
    "GET /stations/{name}/statement": 404,
    "GET /stations/heads": 404,
    "PUT /stations/heads": 422,
}
"""What the permitted hear, of things that are not there and bodies that are empty; 200 where it is not said."""


@dataclass
class Place:
    site: Site
    http: httpx.Client
    tokens: dict[str, str]
    key: Any

    def ask(self, role: str, method: str, path: str) -> httpx.Response:
        target = "/api/v1" + path.format(**self._parameters(path))
        headers = {}
        if role in self.tokens:
            headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        elif role == Role.STATION:
            headers = sign_request(self.key, method, target, EMPTY_DIGEST, now=time.time())
        return self.http.request(method, target, headers=headers)

    @staticmethod
    def _parameters(path: str) -> dict[str, str]:
        name = (
            "timestamp.json" if "metadata" in path else "model.safetensors" if "result" in path else STATION
        )
        return PARAMETERS | {"name": name}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("roles")
    board, keys = Board.found(folder), station_keys()
    board.set_register(keys)
    with site(folder, board.root) as found, found.raw() as http:
        token = found.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{found.url}/api/v1/mirror", token, found.ca)
        found.services.stations.sync_quietly()
        # Nothing of the mirror is there for what is asked here.
        (found.home.mirror / "metadata" / "timestamp.json").unlink()
        tokens = {
            role.value: found.services.access.new_token(role, f"a {role}")
            for role in Role
            if role != Role.STATION
        }
        yield Place(found, http, tokens, keys[STATION])


def table() -> dict[str, dict[str, str]]:
    """Route to role to what the table says in its cell."""
    lines = [line for line in TABLE.split("\n\nTrains")[0].splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = {}
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        match = re.match(r"`([A-Z]+ /\S+)`", cells[0])
        assert match, line
        assert len(cells) == len(columns), line
        assert match.group(1) not in found, line
        found[match.group(1)] = dict(zip(columns[1:], cells[1:], strict=True))
    return found


def test_the_table_has_every_role_and_every_route(place: Place) -> None:
    document = place.http.get("/api/v1/openapi.json").json()
    routes = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    found = table()
    assert set(found) == routes | {"GET /openapi.json"}
    assert all(set(cells) == {*ROLES, NOBODY} for cells in found.values())
    assert set(STATUS) <= set(found), "a route that is there no longer"


@pytest.mark.parametrize("route", sorted(table()))
def test_a_route_is_for_the_roles_of_the_table_and_for_nobody_else(place: Place, route: str) -> None:
    method, path = route.split(" ")
    cells = table()[route]
    for role in (*ROLES, NOBODY):
        answer = place.ask(role, method, path)
        title = answer.json()["title"] if answer.status_code >= 400 and method != "HEAD" else ""
        where = (route, role, answer.status_code, title)
        if not cells[role]:
            assert answer.status_code == (401 if role == NOBODY else 403), where
            assert method == "HEAD" or role == NOBODY or title == f"this is not for the role {role}", where
            continue
        expected = STATUS.get(route, 200)
        assert answer.status_code == (expected if isinstance(expected, int) else expected[role]), where
        assert "for the role" not in title, where


def test_an_auditor_reads_and_does_nothing_else() -> None:
    permitted = {route for route, cells in table().items() if cells["auditor"]}
    assert all(route.startswith("GET ") for route in permitted)
    read = {re.split(r"[/?]", route)[1] for route in permitted}
    assert read == {"runs", "requests", "stations", "audit", "mirror", "whoami", "health", "openapi.json"}
    assert "GET /runs/{digest}/result/{name}" not in permitted
