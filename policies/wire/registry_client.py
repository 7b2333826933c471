"""The client of the orchestrator's own API: blobs, bundles, the mirror, orders, runs, results.

Used by `pht-train` and `pht-board` (bearer token) and by stations (requests signed with the node key). HTTPS under one
pinned authority, no redirects, every answer bounded or streamed to a file, every blob verified before it gets its
name. It retries nothing but what is safe to repeat, and never shows a peer's text except problem titles and hints,
bounded.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from policies.bundle import BundleIndex
from policies.documents import Digest, canonical_json, digest_of, digest_of_file, load_json, parse_json
from policies.errors import NetworkError, StorageError, UsageError, WireError
from policies.files import sync_folder
from policies.station_statement import StatedList, StatementAnswer
from policies.tls import client_context
from policies.wire.http import EMPTY_DIGEST, sign_request
from policies.wire.registry_answers import (
    MAX_ANSWER_BYTES,
    BlobUpload,
    Bundles,
    OrderAccepted,
    Progress,
    RunEvents,
    RunStatus,
    bounded_body,
    fault_of,
    read_answer,
)

__all__ = ["MAX_ANSWER_BYTES", "BlobUpload", "Progress", "RegistryClient", "RunEvents", "RunStatus"]

API = "/api/v1"
RECEIVED_HEADER = "PHT-Received"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
_PIECE_BYTES = 1 << 20
_TRIES = 4
_LONG_POLL_S = 20.0


class RegistryClient:
    """One party's connection to an orchestrator. Not for use by several threads at once.

    Args:
        url: ``https://host:port``.
        ca: PEM file of the authority behind the orchestrator's certificate.
        token: a bearer token, for researchers, the board, the witness and the operator.
        signer: the node's key, for stations; one of the two, or neither for what is open to all.
        proxy: URL of a proxy that takes CONNECT.

    Every method raises `NetworkError` when the orchestrator does not answer, `TrustError` when it does not accept who
    asks, `NotFoundError`, `RefusedError` with its code, or `UsageError` with the orchestrator's title and hint.
    """

    def __init__(
        self,
        url: str,
        ca: Path,
        token: str | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        *,
        proxy: str | None = None,
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
        self._http = httpx.Client(
            verify=client_context(ca),
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            proxy=proxy,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob is there for us, so that it need not be sent."""
        return self._head(digest)[0]

    def put_blob(
        self, path: Path, *, digest: Digest | None = None, order: Digest | None = None
    ) -> BlobUpload:
        """Send a file unless it is there; an upload that broke off goes on where it stopped.

        Args:
            path: the file.
            digest: of its bytes, where the caller knows it.
            order: the run order it belongs to; a station must say so.
        """
        found = digest or digest_of_file(path)
        size = path.stat().st_size
        target = f"/blobs/{found}" + (f"?order={quote(order, safe=':')}" if order else "")
        for attempt in range(_TRIES):
            present, received = self._head(found)
            if present:
                return BlobUpload(digest=found, size=size, complete=True)
            try:
                return self._send_file(target, path, found, min(received, size), size)
            except NetworkError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(0.2 * 4**attempt)
        raise NetworkError("the upload did not complete")

    def get_blob(
        self, digest: Digest, to: Path, *, max_bytes: int | None = None, resume: bool = True
    ) -> None:
        """Fetch a blob into a file that appears whole and verified, or not at all.

        Args:
            digest: what it must be.
            to: where it goes; ``<to>.part`` holds what came before a break.
            max_bytes: more than this is refused.
            resume: go on with a ``.part`` file that is there.

        Raises:
            WireError: the bytes are not the digest's, or too many.
        """
        part = to.with_name(to.name + ".part")
        if not resume:
            part.unlink(missing_ok=True)
        for attempt in range(_TRIES):
            try:
                self._fetch(f"/blobs/{digest}", part, max_bytes)
                break
            except NetworkError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(0.2 * 4**attempt)
        if digest_of_file(part) != digest:
            part.unlink(missing_ok=True)
            raise WireError("the blob that came is not the one that was asked for")
        part.replace(to)
        sync_folder(to.parent)

    # Bundles

    def put_bundle(self, name: str, version: str, index: BundleIndex) -> None:
        """Say which blobs make up a train; all of them must have been sent."""
        self._call("PUT", f"/bundles/{quote(name)}/{quote(version)}", index.encode())

    def find_bundle(self, image_config: Digest) -> BundleIndex:
        """The newest bundle with this image: which blobs a station needs."""
        return self._bundles(f"/bundles/by-image/{image_config}")[0]

    def find_bundles_of(self, manifest: Digest) -> list[BundleIndex]:
        """The bundles of a train by its manifest's digest: one per image variant."""
        return self._bundles(f"/bundles/by-manifest/{manifest}")

    # The mirror

    def get_metadata(self, name: str) -> bytes:
        """A file of the mirror's metadata; not verified here."""
        return self._call("GET", f"/mirror/metadata/{quote(name)}")

    def get_target(self, path: str) -> bytes:
        """A target of the mirror; not verified here."""
        return self._call("GET", f"/mirror/targets/{quote(path)}")

    def put_metadata(self, name: str, data: bytes) -> None:
        """Publish a metadata file; ``timestamp.json`` last."""
        self._call("PUT", f"/mirror/metadata/{quote(name)}", data)

    def put_target(self, path: str, data: bytes) -> None:
        """Publish a target."""
        self._call("PUT", f"/mirror/targets/{quote(path)}", data)

    # Statements of stations

    def put_statement(self, station: str, envelope: bytes) -> StatementAnswer:
        """State what our records are; the receipt is not verified here."""
        return self._statement(self._call("PUT", f"/stations/{quote(station)}/statement", envelope))

    def get_statement(self, station: str) -> StatementAnswer:
        """The newest statement of a station; not verified here."""
        return self._statement(self._call("GET", f"/stations/{quote(station)}/statement"))

    def statements(self) -> StatedList:
        """Which statement of each station is the newest; the orchestrator's word, nobody's signature."""
        return load_json(
            StatedList,
            self._call("GET", "/stations/statements"),
            what="statements",
            max_bytes=MAX_ANSWER_BYTES,
        )

    def get_heads(self) -> bytes:
        """The witness's newest document over all stations; not verified here."""
        return self._call("GET", "/stations/heads")

    def put_heads(self, envelope: bytes) -> None:
        """Send the witness's document."""
        self._call("PUT", "/stations/heads", envelope)

    @staticmethod
    def _statement(answer: bytes) -> StatementAnswer:
        return load_json(StatementAnswer, answer, what="statement", max_bytes=MAX_ANSWER_BYTES)

    # Orders and runs

    def post_order(self, envelope: bytes) -> Digest:
        """Give a signed order; returns the digest that names its run."""
        return read_answer(OrderAccepted, self._call("POST", "/orders", envelope)).digest

    def runs(self) -> list[RunStatus]:
        """Our runs, the newest first."""
        value = parse_json(self._call("GET", "/runs"), what="runs", max_bytes=MAX_ANSWER_BYTES)
        if not isinstance(value, list):
            raise WireError("the list of runs is no list")
        return [read_answer(RunStatus, canonical_json(item)) for item in value]

    def get_run(self, digest: Digest) -> RunStatus:
        """One run with its rounds."""
        return read_answer(RunStatus, self._call("GET", f"/runs/{digest}"))

    def events(
        self, digest: Digest, after: int = 0, mark: str = "", wait_s: float = _LONG_POLL_S
    ) -> RunEvents:
        """Wait for rounds beyond `after`, or for another state than `mark` names."""
        target = f"/runs/{digest}/events?after={after}&mark={quote(mark)}&wait_s={wait_s:g}"
        return read_answer(RunEvents, self._call("GET", target))

    def wait_run(
        self, digest: Digest, timeout_s: float, on_event: Callable[[RunEvents], None] | None = None
    ) -> RunStatus:
        """Follow a run until it is over and, where it finished, its result is complete.

        Args:
            digest: the order's digest.
            timeout_s: after this it raises.
            on_event: called with each batch of news.

        Raises:
            NetworkError: it is not over in time.
        """
        end = time.monotonic() + timeout_s
        after, mark = 0, ""
        while (left := end - time.monotonic()) > 0:
            try:
                news = self.events(digest, after, mark, wait_s=min(left, _LONG_POLL_S))
            except NetworkError:
                # The orchestrator may be starting again; the run goes on.
                time.sleep(min(left, 1.0))
                continue
            if on_event is not None and (news.events or news.mark != mark):
                on_event(news)
            after, mark = news.next, news.mark
            if news.progress.is_over:
                status = self.get_run(digest)
                if news.progress.state != "finished" or "provenance.json" in status.result:
                    return status
                # The result is written within a moment of the last round: its completion is the next event.
        raise NetworkError(
            "the run is not over in the time given", hint="It goes on; ask again with its digest."
        )

    def stop_run(self, digest: Digest) -> None:
        """Ask that a run stops."""
        self._call("POST", f"/runs/{digest}/stop")

    def download_result(self, digest: Digest, folder: Path) -> list[Path]:
        """Fetch the files of a finished run's result."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in self.get_run(digest).result if name == Path(name).name]
        for name in names:
            part = folder / (name + ".part")
            part.unlink(missing_ok=True)
            self._fetch(f"/runs/{digest}/result/{quote(name)}", part, None)
            part.replace(folder / name)
        return [folder / name for name in names]

    # How a request is made

    def _bundles(self, target: str) -> list[BundleIndex]:
        return read_answer(Bundles, self._call("GET", target)).bundles

    def _head(self, digest: Digest) -> tuple[bool, int]:
        with self._open("HEAD", f"/blobs/{digest}") as response:
            if response.status_code == 200:
                return True, 0
            if response.status_code == 404:
                received = response.headers.get(RECEIVED_HEADER, "0")
                return False, int(received) if received.isdigit() else 0
            raise fault_of(response.status_code, b"")

    def _send_file(self, target: str, path: Path, digest: Digest, offset: int, size: int) -> BlobUpload:
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        body_digest = digest
        if offset:
            if offset == size:
                offset = 0
                headers["Content-Length"] = str(size)
            else:
                headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
                body_digest = _digest_from(path, offset)
        with self._open("PUT", target, _pieces(path, offset), body_digest, headers) as response:
            answer = bounded_body(response)
            if response.status_code >= 400:
                raise fault_of(response.status_code, answer)
        return read_answer(BlobUpload, answer)

    def _fetch(self, target: str, part: Path, max_bytes: int | None) -> None:
        here = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={here}-"} if here else {}
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
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageError(f"{part.name}: cannot be written ({error.strerror})") from error

    def _call(self, method: str, target: str, body: bytes | None = None) -> bytes:
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
        content: bytes | Iterator[bytes] | None = None,
        body_digest: Digest = EMPTY_DIGEST,
        headers: dict[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        request = self._http.build_request(method, self._base + target, content=content, headers=headers)
        if self._signer is not None:
            sent = request.url.raw_path.decode("ascii")
            request.headers.update(sign_request(self._signer, method, sent, body_digest, now=time.time()))
        try:
            response = self._http.send(request, stream=True)
            try:
                yield response
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise NetworkError(
                f"the orchestrator at {self._http_host()} does not answer ({type(error).__name__})",
                hint="Check the address, the network and the orchestrator's certificate authority.",
            ) from error

    def _http_host(self) -> str:
        return urlsplit(self._base).netloc


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
