"""Small request bodies, read under a ceiling."""

from fastapi import Request

from policies.errors import UsageError


async def bounded_body(request: Request, limit: int) -> bytes:
    """Read a whole body.

    Raises:
        UsageError: it is larger than `limit` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise UsageError(f"the body is over the limit of {limit} bytes")
    return bytes(body)
