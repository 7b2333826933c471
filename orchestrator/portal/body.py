"""Request bodies: small ones read under a ceiling, large ones written on as they come."""

from collections.abc import Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from orchestrator.portal.problems import TooLargeError
from policies.errors import WireError

BATCH_BYTES = 1 << 20


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


async def write_body(request: Request, write: Callable[[bytes], object]) -> None:
    """Write a body on in batches, in a thread; what came before a break is written too, for its sender to go on from.

    Raises:
        WireError: the sender went away.
    """
    batch = bytearray()
    try:
        async for chunk in request.stream():
            batch += chunk
            if len(batch) >= BATCH_BYTES:
                await run_in_threadpool(write, bytes(batch))
                batch.clear()
    except ClientDisconnect as error:
        raise WireError("the sender went away") from error
    finally:
        if batch:
            await run_in_threadpool(write, bytes(batch))
