"""Request bodies that are files: read under a ceiling."""

from fastapi import Request

from policies.errors import UsageError
from station.intake.csv_reader import MAX_CSV_BYTES


class BodyError(UsageError):
    """The request's body is too large."""


async def read_body(request: Request, max_bytes: int = MAX_CSV_BYTES) -> bytes:
    """Return a request's body.

    Raises:
        BodyError: it is over the ceiling.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise BodyError(f"the file is over {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)
