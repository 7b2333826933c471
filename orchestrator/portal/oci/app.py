"""The distribution API as an application of its own: which address and method is which use case.

OCI Distribution Specification 1.1; the numbers are those of its table "Endpoints". Not offered: deleting (end-9, end-10), since what
a version of a train is never changes.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Message, Receive, Scope, Send

from orchestrator.portal.limits import Limited
from orchestrator.portal.oci import pulling, pushing
from orchestrator.portal.oci.answers import error_of, errors
from orchestrator.portal.oci.parts import OciParts, oci_parts
from orchestrator.registry.oci.faults import OciCode
from orchestrator.services import Services
from policies.errors import PhtError

PREFIX: Final = "/v2/"
_OPEN: Final = re.compile(r"(?!)")  # nothing
_STREAMS: Final = re.compile(r"(?:POST|PATCH|PUT) /v2/.+/blobs/uploads/.*")
_LET_IN_BYTES: Final = 16 << 20
_LET_IN_S: Final = 60.0
_LOG = logging.getLogger(__name__)

Handler = Callable[[OciParts, Request, dict[str, str]], Awaitable[Response]]

_ROUTES: Final[tuple[tuple[re.Pattern[str], dict[str, Handler]], ...]] = tuple(
    (re.compile(pattern), {method: handler for methods, handler in handlers for method in methods.split()})
    for pattern, handlers in (
        (r"/v2/", [("GET HEAD", pulling.base)]),  # end-1
        (r"/v2/_catalog", [("GET", pulling.catalog)]),
        (r"/v2/(?P<name>.+)/tags/list", [("GET", pulling.tags)]),  # end-8a, end-8b
        (
            r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)",
            [("GET HEAD", pulling.manifest), ("PUT", pushing.put_manifest)],  # end-3, end-7
        ),
        (r"/v2/(?P<name>.+)/blobs/uploads/?", [("POST", pushing.begin)]),  # end-4a, end-4b, end-11
        (
            r"/v2/(?P<name>.+)/blobs/uploads/(?P<session>[^/]+)",
            [
                ("GET", pushing.state),  # end-13
                ("PATCH", pushing.chunk),  # end-5
                ("PUT", pushing.finish),  # end-6
                ("DELETE", pushing.cancel),
            ],
        ),
        (r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)", [("GET HEAD", pulling.blob)]),  # end-2
        (r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)", [("GET", pulling.referrers)]),  # end-12a, end-12b
    )
)


class _Body:
    """Sees how far a request's body has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._more = receive, True

    async def receive(self) -> Message:
        """Pass the next part on."""
        message = await self._receive()
        self._more = message["type"] == "http.request" and bool(message.get("more_body", False))
        return message

    async def over(self, limit: int) -> bool:
        """Read the rest and drop it; returns whether it ended within so many bytes, and in time."""
        read = 0
        try:
            async with asyncio.timeout(_LET_IN_S):
                while self._more and read <= limit:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return False
        return not self._more


class OciApplication:
    """An ASGI application for what begins with ``/v2/``."""

    def __init__(self, parts: OciParts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = _Body(receive)
        response = await self._answer(Request(scope, body.receive))
        failed = response.status_code >= 400 and scope["method"] not in {"GET", "HEAD"}
        # An answer that overtakes its request's body is lost with the connection: what is on its way is let in first.
        if failed and not await body.over(_LET_IN_BYTES):
            response.headers["Connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # The raw bytes of the target: nothing decodes to another address. Only a digest's colon is written both ways.
        raw = (request.scope.get("raw_path") or b"").decode("ascii", "replace")
        path = raw.replace("%3A", ":").replace("%3a", ":")
        for pattern, handlers in _ROUTES:
            if found := pattern.fullmatch(path):
                handler = handlers.get(request.method)
                if handler is None:
                    return errors(
                        405,
                        OciCode.UNSUPPORTED,
                        "this is not offered here",
                        Allow=", ".join(sorted(handlers)),
                    )
                try:
                    return await handler(self._parts, request, found.groupdict())
                except PhtError as error:
                    return error_of(error)
                except Exception as error:  # noqa: BLE001 - the outermost boundary: no foreign text goes out
                    _LOG.error("oci_fault", extra={"kind": type(error).__name__})
                    return errors(500, OciCode.UNSUPPORTED, "an unexpected fault in the orchestrator")
        return errors(404, OciCode.NAME_UNKNOWN, "there is no such thing here")


def create_oci(services: Services) -> Limited:
    """Return the application over `services`, behind the same door as our own API."""
    return Limited(OciApplication(oci_parts(services)), services.gate, _OPEN, _STREAMS, error_of)
