"""The front's decision, over targets that nobody would write by hand; the real server is in tests/security."""

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.federation.superlink import FLEET_ROUTES
from orchestrator.front.app import Front, Message, Receive, Scope, Send

_PARTS = st.sampled_from(
    [
        "/",
        "v1",
        "fleet",
        "control",
        "runtime",
        "pull-messages",
        "api",
        "v2",
        "..",
        ".",
        "%2e",
        "%2f",
        ";",
        "//",
        "\\",
        "\u00e9",
    ]
)
_TARGETS = (
    st.sampled_from(sorted(FLEET_ROUTES)) | st.lists(_PARTS, max_size=9).map("".join) | st.text(max_size=20)
)


def _reached(method: str, target: bytes, query: bytes = b"", path: str | None = None) -> str:
    """Which application a request gets to, or its status."""
    seen: list[str] = []

    def application(name: str) -> Any:  # an ASGI application
        async def answer(_scope: Scope, _receive: Receive, _send: Send) -> None:
            seen.append(name)

        return answer

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(str(message["status"]))

    scope = {
        "type": "http",
        "method": method,
        "raw_path": target,
        "path": target.decode("utf-8", "replace") if path is None else path,
        "query_string": query,
        "headers": [],
    }
    front = Front(application("api"), application("fleet"), application("oci"))
    asyncio.run(front(scope, receive, send))
    assert len(seen) == 1
    return seen[0]


@settings(max_examples=200, deadline=None)
@given(
    target=_TARGETS,
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    query=st.binary(max_size=3),
)
@example(target="/v1/fleet/pull-messages", method="POST", query=b"")
def test_only_the_exact_routes_reach_the_superlink(target: str, method: str, query: bytes) -> None:
    reached = _reached(method, target.encode("utf-8", "replace"), query)
    wanted = method == "POST" and target in FLEET_ROUTES and not query
    assert (reached == "fleet") == wanted
    if not wanted and not target.startswith(("/api/v1/", "/v2/")):
        assert reached == "404"


def test_a_path_that_decodes_to_another_goes_nowhere() -> None:
    assert _reached("POST", b"/v1/control/start-run", path="/v1/fleet/pull-messages") == "404"
    assert _reached("GET", b"/v1/control/list-runs", path="/api/v1/health") == "404"
    assert _reached("GET", b"/v1/control/list-runs", path="/v2/") == "404"
    assert _reached("GET", b"/api/v1/health") == "api"
    assert _reached("GET", b"/v2/") == "oci"
    assert _reached("GET", b"/v2/trivial/tags/list", b"n=1") == "oci"
    assert _reached("GET", b"/v2") == "404"


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def run() -> None:
        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise AssertionError

        await Front(never, never, never)({"type": "websocket", "path": "/api/v1/x"}, receive, send)

    asyncio.run(run())
    assert [message["type"] for message in sent] == ["websocket.close"]
