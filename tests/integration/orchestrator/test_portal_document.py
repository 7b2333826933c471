"""The API's own description, held against the README and against what strangers may learn from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orchestrator_site import Site, site

README = Path(__file__).parents[3] / "orchestrator" / "README.md"
OPEN = {"/api/v1/health", "/api/v1/mirror/metadata/{name}", "/api/v1/mirror/targets/{path}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("portal")) as found:
        yield found


def _paths(place: Site) -> dict[str, Any]:
    with place.raw() as raw:
        found: dict[str, Any] = raw.get("/api/v1/openapi.json").json()["paths"]
        return found


def test_every_route_is_in_the_readme(place: Site) -> None:
    text = README.read_text("utf-8")
    for path, methods in _paths(place).items():
        assert path.removeprefix("/api/v1") in text, path
        assert all(method.upper() in text for method in methods)


def test_every_route_but_the_open_ones_asks_who_you_are(place: Site) -> None:
    with place.raw() as raw:
        for path, methods in _paths(place).items():
            target = path.format(
                digest="sha256:" + "0" * 64, name="timestamp.json", path="x", version="1.0.0", id="0" * 32
            )
            for method in methods:
                if path in OPEN and method == "get":
                    continue
                answer = raw.request(method.upper(), target)
                assert answer.status_code == 401, (method, path)
                if method != "head":
                    problem = json.loads(answer.content)
                    assert (problem["status"], problem["code"]) == (401, "UnauthorisedError")


@pytest.mark.parametrize("target", ["/api/v1/", "/api/v1/nothing", "/docs", "/openapi.json"])
def test_what_is_not_there_is_a_problem_document(place: Site, target: str) -> None:
    with place.raw() as raw:
        answer = raw.get(target)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_digest_that_is_none_is_a_problem_document(place: Site) -> None:
    with place.raw() as raw:
        answer = raw.get("/api/v1/blobs/sha256:xyz", headers={"Authorization": "Bearer x"})
        assert answer.status_code in {401, 422}
        assert answer.headers["content-type"] == "application/problem+json"
