"""Small request bodies, read under a ceiling."""

from fastapi import Request

from orchestrator.portal.problems import TooLargeError


async def bounded_body(request: Request, limit: int) -> bytes:
    """Read a whole body.

    Raises:
        TooLargeError: it is larger than `limit` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLargeError(limit)
    return bytes(body)
