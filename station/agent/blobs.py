"""Weights by digest: fetches and sends blobs at the orchestrator's own HTTPS endpoint, through files.

A fetch continues where an earlier one broke off (Range), and what it leaves under the final name has been hashed.
A push sends nothing that the orchestrator already holds. Requests are signed with the node's key
(`policies.wire.http`). No redirects; a blob never grows past the size that was announced.
"""

import hashlib
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from policies.documents import digest_of_file
from policies.errors import NetworkError, NotFoundError, StorageError, WireError
from policies.wire.http import EMPTY_DIGEST, sign_request
from policies.wire.instructions import Blob
from policies.wire.proxies import Proxy
from policies.wire.steady import steady_client

_CHUNK_BYTES = 1024 * 1024
_TRIES = 6
_PATH = "/api/v1/blobs/"
_RECEIVED_HEADER = "PHT-Received"


class BlobClient:
    """Moves blobs between files here and the orchestrator; safe to use from several threads at once."""

    def __init__(
        self, base_url: str, ca_path: Path, key: ec.EllipticCurvePrivateKey, proxy: Proxy | None = None
    ) -> None:
        self._key = key
        self._stop = threading.Event()
        trusted = ssl.create_default_context(cafile=str(ca_path))
        self._client = steady_client(trusted, read_s=60.0, connect_s=10.0, proxy=proxy, base_url=base_url)

    def close(self) -> None:
        """Drop the connections and stop retrying."""
        self._stop.set()
        self._client.close()

    def fetch(self, blob: Blob, path: Path) -> None:
        """Bring a blob's bytes into `path`, whole and verified; nothing moves when they are there already.

        (A round's new weights are asked for twice: to evaluate them, and to train on.) Bytes on the way lie beside it as
        ``<name>.part`` and are used by the next try.

        Raises:
            NotFoundError: the orchestrator does not hold it, or not for this station.
            WireError: what arrived is not what the digest says.
            NetworkError: it does not answer, after several tries.
            StorageError: the disk.
        """
        if _holds(path, blob):
            return
        part = path.with_name(path.name + ".part")
        self._patiently(lambda: self._fetch_rest(blob, part))
        if not _holds(part, blob):
            part.unlink()
            raise WireError("a blob's bytes are not what its digest says")
        part.replace(path)

    def push(self, blob: Blob, path: Path, order_digest: str) -> None:
        """Send a file as a blob of one order; nothing moves when the orchestrator holds it from us.

        Args:
            blob: what the file is.
            path: the file.
            order_digest: the order it is released for.

        Raises:
            NetworkError: refused or not answered, after several tries.
        """
        self._patiently(lambda: self._push_rest(blob, path, order_digest))

    def _fetch_rest(self, blob: Blob, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have > blob.size:
            part.unlink()
            have = 0
        if have == blob.size and have > 0:
            return
        request = self._signed("GET", _PATH + blob.digest, EMPTY_DIGEST)
        if have:
            request.headers["range"] = f"bytes={have}-"
        response = self._client.send(request, stream=True)
        try:
            if response.status_code not in {200, 206}:
                raise _named(response.status_code)
            if response.status_code == 206 and not _continues(response, have):
                raise NetworkError("the orchestrator answered another range than was asked for")
            start = have if response.status_code == 206 else 0
            _append(part, start, response.iter_raw(), blob.size)
        finally:
            response.close()

    def _push_rest(self, blob: Blob, path: Path, order_digest: str) -> None:
        target = f"{_PATH}{blob.digest}?order={order_digest}"
        head = self._signed("HEAD", target, EMPTY_DIGEST)
        found = self._client.send(head)
        if found.status_code == 200:
            return
        start = _received(found, blob.size)
        request = self._signed(
            "PUT",
            target,
            _digest_from(path, start) if start else blob.digest,
            content=_Chunks(path, start, blob.size),
        )
        request.headers["content-type"] = "application/octet-stream"
        if start:
            request.headers["content-range"] = f"bytes {start}-{blob.size - 1}/{blob.size}"
        response = self._client.send(request)
        if response.status_code not in {200, 201, 204}:
            raise _named(response.status_code)

    def _signed(
        self, method: str, target: str, digest: str, content: "_Chunks | None" = None
    ) -> httpx.Request:
        headers = {} if content is None else {"content-length": str(content.size)}
        request = self._client.build_request(method, target, headers=headers, content=content)
        # Over the target as it is sent.
        signed = request.url.raw_path.decode("ascii")
        request.headers.update(sign_request(self._key, method, signed, digest, now=time.time()))
        request.headers["accept-encoding"] = "identity"
        return request

    def _patiently(self, step: Callable[[], None]) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                step()
            except (httpx.TransportError, httpx.StreamError) as error:
                if attempt == _TRIES or self._stop.is_set():
                    raise NetworkError(
                        f"the orchestrator's blobs do not answer ({type(error).__name__})"
                    ) from None
            except _PassingError as error:
                if attempt == _TRIES or self._stop.is_set():
                    raise NetworkError(str(error)) from None
            except RuntimeError as error:
                # httpx's "client has been closed".
                raise NetworkError("the connection was closed") from error
            except OSError as error:
                raise StorageError(f"cannot store a blob ({error.strerror})") from error
            else:
                return
            self._stop.wait(0.2 * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter


def _holds(path: Path, blob: Blob) -> bool:
    try:
        return path.stat().st_size == blob.size and digest_of_file(path) == blob.digest
    except FileNotFoundError:
        return False


class _PassingError(Exception):
    """An answer that may be another one in a moment."""


def _named(status: int) -> Exception:
    if status in {429, 500, 502, 503, 504}:
        return _PassingError(f"the orchestrator's blobs answer {status}")
    if status == 404:
        return NotFoundError("the orchestrator does not hold this blob for this station")
    return NetworkError(f"the orchestrator refused a blob ({status})")


def _continues(response: httpx.Response, have: int) -> bool:
    return str(response.headers.get("content-range", "")).startswith(f"bytes {have}-")


def _append(part: Path, start: int, chunks: Iterator[bytes], size: int) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for chunk in chunks:
            start += len(chunk)
            if start > size:
                raise WireError("a blob is larger than announced")
            file.write(chunk)
    if start < size:
        raise _PassingError("a blob broke off")


class _Chunks:
    """A file from `start` on, in pieces; can be sent more than once."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self.size = end - start
        self._path, self._start = path, start

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        with self._path.open("rb") as file:
            file.seek(self._start)
            while left > 0:
                chunk = file.read(min(_CHUNK_BYTES, left))
                if not chunk:
                    raise StorageError("a blob's file is shorter than its size")
                left -= len(chunk)
                yield chunk


def _received(response: httpx.Response, size: int) -> int:
    """How much of an earlier try the orchestrator kept; all of it, or nonsense, means to start again."""
    text = response.headers.get(_RECEIVED_HEADER, "0")
    received = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    return received if received < size else 0


def _digest_from(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def blob_of(path: Path) -> Blob:
    """Name a file's bytes."""
    return Blob(digest=digest_of_file(path), size=path.stat().st_size)
