"""One connection to an orchestrator's own API: how a request is signed, bounded, sent and read.

HTTPS under one pinned authority, by a client whose exchanges end (`steady`); an answer is bounded, or streamed to a file.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from policies.documents import Digest, digest_of
from policies.errors import NetworkError, StorageError, UsageError, WireError
from policies.tls import client_context
from policies.wire.http import EMPTY_DIGEST, sign_request
from policies.wire.proxies import Proxy
from policies.wire.registry_answers import BlobUpload, bounded_body, fault_of, read_answer
from policies.wire.steady import steady_client

API = "/api/v1"
RECEIVED_HEADER = "PHT-Received"
CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
MAX_WAITS = 4
"""How often a request that came too soon is made again, after as long as the orchestrator says."""
MAX_RETRY_AFTER_S = 30.0
_PIECE_BYTES = 1 << 20


class RegistryConnection:
    """Not for use by several threads at once.

    Args:
        url: ``https://host:port``.
        ca: PEM file of the authority behind the orchestrator's certificate.
        token: a bearer token.
        signer: a node's key; one of the two, or neither for what is open to all.
        proxy: a CONNECT proxy to go through.

    Every method raises `NetworkError` when the orchestrator does not answer, and what `fault_of` says where it refuses.
    """

    def __init__(
        self,
        url: str,
        ca: Path,
        token: str | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        *,
        proxy: Proxy | None = None,
    ) -> None:
        if urlsplit(url).scheme != "https":
            raise UsageError("the orchestrator's address must start with https://")
        if token is not None and signer is not None:
            raise UsageError("a request is either signed or carries a token")
        self._base = url.rstrip("/") + API
        self._signer = signer
        headers = {"Accept-Encoding": "identity", "User-Agent": "pht"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = steady_client(
            client_context(ca),
            read_s=READ_TIMEOUT_S,
            connect_s=CONNECT_TIMEOUT_S,
            headers=headers,
            proxy=proxy,
        )

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def head(self, digest: Digest) -> tuple[bool, int]:
        """Whether a blob is there for us, and how much of it came before a break."""
        with self._open("HEAD", f"/blobs/{digest}") as response:
            if response.status_code == 200:
                return True, 0
            if response.status_code == 404:
                received = response.headers.get(RECEIVED_HEADER, "0")
                return False, int(received) if received.isdigit() else 0
            raise fault_of(response.status_code, b"")

    def send_file(self, target: str, path: Path, digest: Digest, offset: int, size: int) -> BlobUpload:
        """Send a file from an offset on."""
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        body_digest = digest
        if offset:
            if offset == size:
                offset = 0
                headers["Content-Length"] = str(size)
            else:
                headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
                body_digest = _digest_from(path, offset)
        with self._open("PUT", target, lambda: _pieces(path, offset), body_digest, headers) as response:
            answer = bounded_body(response)
            if response.status_code >= 400:
                raise fault_of(response.status_code, answer)
        return read_answer(BlobUpload, answer)

    def fetch(
        self,
        target: str,
        part: Path,
        max_bytes: int | None,
        *,
        etag: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Fetch into a file, on from what it holds; the bytes are not verified here.

        Args:
            target: path under the API.
            part: the file.
            max_bytes: more than this is refused.
            etag: what the file holds is a beginning of the bytes of this ETag; of others it is fetched from the start.
            on_bytes: told how many bytes the file holds, after each piece.
        """
        here = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={here}-"} if here else {}
        if here and etag is not None:
            headers["If-Range"] = f'"{etag}"'
        with self._open("GET", target, headers=headers) as response:
            if response.status_code == 416:
                # All of it is here already (or too much: the digest will tell).
                return
            if response.status_code not in {200, 206}:
                raise fault_of(response.status_code, bounded_body(response))
            written = here if response.status_code == 206 else 0
            try:
                with part.open("r+b" if written else "wb") as file:
                    file.seek(written)
                    for chunk in response.iter_raw(_PIECE_BYTES):
                        written += len(chunk)
                        if max_bytes is not None and written > max_bytes:
                            raise WireError(f"more than {max_bytes} bytes came")
                        file.write(chunk)
                        if on_bytes is not None:
                            on_bytes(written)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageError(f"{part.name}: cannot be written ({error.strerror})") from error

    def call(self, method: str, target: str, body: bytes | None = None) -> bytes:
        """Make one request and return its answer, bounded."""
        with self._open(method, target, body, EMPTY_DIGEST if body is None else digest_of(body)) as response:
            answer = bounded_body(response)
            if response.status_code >= 300:
                raise fault_of(response.status_code, answer)
            return answer

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        target: str,
        content: bytes | Callable[[], Iterator[bytes]] | None = None,
        body_digest: Digest = EMPTY_DIGEST,
        headers: dict[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        try:
            response = self._send(method, target, content, body_digest, headers)
            waits = 0
            while response.status_code == 429 and waits < MAX_WAITS:
                # It has not looked at the request: asking again repeats nothing.
                waits += 1
                response.close()
                time.sleep(_retry_after(response.headers.get("Retry-After", "")))
                response = self._send(method, target, content, body_digest, headers)
            try:
                yield response
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise NetworkError(
                f"the orchestrator at {self._http_host()} does not answer ({type(error).__name__})",
                hint="Check the address, the network and the orchestrator's certificate authority.",
            ) from error

    def _send(
        self,
        method: str,
        target: str,
        content: bytes | Callable[[], Iterator[bytes]] | None,
        body_digest: Digest,
        headers: dict[str, str] | None,
    ) -> httpx.Response:
        body = content() if callable(content) else content
        request = self._http.build_request(method, self._base + target, content=body, headers=headers)
        if self._signer is not None:
            sent = request.url.raw_path.decode("ascii")
            request.headers.update(sign_request(self._signer, method, sent, body_digest, now=time.time()))
        return self._http.send(request, stream=True)

    def _http_host(self) -> str:
        return urlsplit(self._base).netloc


def _retry_after(text: str) -> float:
    # What a peer says is bounded: it cannot keep us for long.
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) < 8 else 1.0


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _digest_from(path: Path, offset: int) -> Digest:
    digest = hashlib.sha256()
    for piece in _pieces(path, offset):
        digest.update(piece)
    return "sha256:" + digest.hexdigest()
