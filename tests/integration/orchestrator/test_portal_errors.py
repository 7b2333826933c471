"""The API's document is valid, bodies are bounded on every route, and whatever is asked, an error has the one shape."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from orchestrator_site import Site, site

from orchestrator.portal.app import OPEN_PATHS, create_app
from orchestrator.portal.limits import MAX_BODY_BYTES
from orchestrator.registry.access import Role
from policies.tls import client_context

FOREIGN = re.compile(
    r"Traceback|File \"|\.py\b|pydantic|sqlalchemy|sqlite|psycopg|starlette|fastapi|Errno|NoneType|<class|object at 0x",
    re.IGNORECASE,
)
BIG = MAX_BODY_BYTES + 1


@dataclass
class Place:
    site: Site
    http: httpx.Client
    tokens: dict[str, str]
    document: dict[str, Any]

    @property
    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with site(tmp_path_factory.mktemp("errors")) as found, found.raw() as http:
        tokens = {
            role.value: found.services.access.new_token(role, "x") for role in Role if role != Role.STATION
        }
        yield Place(found, http, tokens, http.get("/api/v1/openapi.json").json())


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_the_document_is_an_openapi_document(place: Place) -> None:
    document = place.document
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in set(_references(document)):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    identifiers = [operation["operationId"] for _, _, operation in place.operations]
    assert len(set(identifiers)) == len(identifiers)
    assert "HTTPValidationError" not in str(document), "the framework's own shape of an error"


def test_every_route_says_what_it_is_and_how_it_fails(place: Place) -> None:
    problem = {"$ref": "#/components/schemas/Problem"}
    for method, path, operation in place.operations:
        where = (method, path)
        assert path.startswith("/api/v1/"), where
        assert operation["summary"], where
        named = set(re.findall(r"\{(\w+)\}", path))
        assert named == {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}, where
        responses = operation["responses"]
        assert any(status.startswith("2") for status in responses), where
        assert {"429", "4XX", "5XX"} <= set(responses), where
        for status, response in responses.items():
            if not status.startswith("2"):
                assert response["content"]["application/problem+json"]["schema"] == problem, where
        assert "Retry-After" in responses["429"]["headers"], where
        is_open = method == "GET" and path in OPEN_PATHS
        assert operation["security"] == ([] if is_open else [{"token": []}, {"signature": []}]), where
        assert ("401" in responses) is not is_open, where
        takes_body = method == "PUT" or (method == "POST" and path in {"/api/v1/orders", "/api/v1/requests"})
        assert not takes_body or operation.get("requestBody", {}).get("required"), where


def _filled(path: str) -> str:
    name = "timestamp.json" if "metadata" in path else "x"
    return path.format(
        digest="sha256:" + "0" * 64, id="0" * 32, name=name, version="1.0.0", path="x", run="x"
    )


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(BIG // 65_536 + 2):
        yield b" " * 65_536


def _announce(place: Place, method: str, path: str, size: int, token: str = "") -> tuple[int, dict[str, Any]]:
    """Announce a body and send none of it; return the answer's status and document."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", "Connection: close"]
    head += [f"Authorization: Bearer {token}"] if token else []
    port = place.http.base_url.port
    with (
        socket.create_connection(("localhost", port), timeout=60) as plain,
        client_context(place.site.ca).wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        stream.sendall("\r\n".join([*head, "", ""]).encode())
        received = b""
        while chunk := stream.recv(65_536):
            received += chunk
            text, ended, body = received.partition(b"\r\n\r\n")
            if ended and (method == "HEAD" or body.endswith(b"}")):
                break
    return int(text.split(b" ")[1]), json.loads(body) if body else {}


def test_no_route_takes_a_body_that_is_announced_as_too_large(place: Place) -> None:
    for method, path, _ in place.operations:
        if (method, path) == ("PUT", "/api/v1/blobs/{digest}"):
            continue
        status, problem = _announce(place, method, _filled(path), BIG)
        assert status == 413, (method, path)
        assert method == "HEAD" or problem["code"] == "TooLargeError"


def test_a_body_of_undeclared_length_is_counted(place: Place) -> None:
    takers = [(method, path) for method, path, operation in place.operations if "requestBody" in operation]
    assert len(takers) > 8
    # Without a network, where an answer may be lost with a connection that is closed before all of a body was sent.
    answers = asyncio.run(_endless(place, takers))
    assert len(answers) > 6
    assert all(found == (413, "TooLargeError") for found in answers.values()), answers


async def _endless(place: Place, takers: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, str]]:
    found = {}
    transport = httpx.ASGITransport(create_app(place.site.services))
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as http:
        for method, path in takers:
            if "/blobs/" in path or path.endswith("/statement"):
                # Streamed to a file under a ceiling of its own; a station's, whose body is signed.
                continue
            role = "witness" if path.endswith("/heads") else "researcher"
            role = "board" if re.search(r"/mirror/|/review|/decline", path) else role
            headers = {"Authorization": f"Bearer {place.tokens[role]}"}
            answer = await http.request(method, _filled(path), content=_pieces(), headers=headers)
            found[method, path] = (answer.status_code, answer.json()["code"])
    return found


def test_a_blob_is_bounded_by_its_own_ceiling(place: Place) -> None:
    path = "/api/v1/blobs/sha256:" + "0" * 64
    status, problem = _announce(place, "PUT", path, 65 << 20, place.tokens["researcher"])
    assert (status, problem["code"]) == (400, "UsageError")


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["..", ".", "%00", "\x00", "sha256:" + "0" * 64, "0" * 32, "timestamp.json", "amstel", "1.0.0"]
    ),
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"{}", b"[]", b"null", b'{"a":' * 200, b"[" * 3000, b"&a [*a]", b'{"text":1}', b"a: !!x y"]
    ),
    st.from_regex(
        rb'\{"(text|reason|payload|signed)": ?("[a-z]{0,5}"|[0-9]{1,30}|\{\}|1e999|NaN)\}', fullmatch=True
    ),
)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
extras = st.dictionaries(
    st.sampled_from(
        ["Range", "Content-Range", "If-Range", "Content-Type", "PHT-Key", "Accept", "Transfer-Encoding-X"]
    ),
    st.one_of(
        printable, st.sampled_from(["bytes=0-", "bytes=9-1", "bytes 0-1/2", "bytes 5-1/2", "bytes=a-b"])
    ),
    max_size=3,
)
queries = st.dictionaries(
    st.sampled_from(["after", "mark", "limit", "offset", "state", "order", "nonsense"]),
    st.one_of(words, st.integers().map(str)),
    max_size=3,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nonsense_is_answered_in_the_one_shape(place: Place, data: st.DataObject) -> None:
    method, path, _ = data.draw(st.sampled_from(list(place.operations)))
    named = re.findall(r"\{(\w+)\}", path)
    filled = path.format(**{name: quote(data.draw(words), safe="") for name in named})
    role = data.draw(st.sampled_from([*place.tokens, "nobody", "garbage"]))
    headers = data.draw(extras)
    if role != "nobody":
        headers["Authorization"] = "Bearer " + place.tokens.get(role, "garbage")
    if role == "garbage" and data.draw(st.booleans()):
        del headers["Authorization"]
        headers["PHT-Signature"] = "AAAA"
    body = data.draw(bodies) if method in {"PUT", "POST"} else b""
    answer = place.http.request(method, filled, params=data.draw(queries), headers=headers, content=body)
    _check(place, answer)


def _check(place: Place, answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code < 400 or answer.request.method == "HEAD":
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    Draft202012Validator(place.document["components"]["schemas"]["Problem"]).validate(problem)
    assert problem["status"] == answer.status_code
    assert len(answer.content) < 4096
    shown = f"{problem['title']} {problem.get('hint', '')}"
    assert not FOREIGN.search(shown), shown
    assert str(place.site.home.path) not in shown
    assert (answer.status_code == 429) is ("retry-after" in answer.headers)


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_a_method_that_is_not_offered_has_the_shape_too(place: Place, method: str) -> None:
    for path in {path for _, path, _ in place.operations} | {"/api/v1/openapi.json", "/api/v1/no/such"}:
        _check(place, place.http.request(method, _filled(path)))
