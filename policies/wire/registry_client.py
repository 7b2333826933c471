"""The client of the orchestrator's own API: blobs, bundles, the mirror, orders, runs, results.

Used by `pht-train` and `pht-board` (bearer token) and by stations (requests signed with the node key). HTTPS under one
pinned authority (`registry_connection`), every blob verified before it gets its name. It retries nothing but what is
safe to repeat, and never shows a peer's text except problem titles and hints, bounded.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec

from policies.bundle import BundleIndex
from policies.documents import Digest, canonical_json, digest_of_file, load_json, parse_json
from policies.errors import NetworkError, TrustError, WireError
from policies.files import sync_folder
from policies.station_statement import StatedList, StatementAnswer
from policies.wire.proxies import Proxy
from policies.wire.registry_answers import (
    MAX_ANSWER_BYTES,
    BlobUpload,
    Bundles,
    Holding,
    Identity,
    OrderAccepted,
    Progress,
    RunEvents,
    RunStatus,
    read_answer,
)
from policies.wire.registry_connection import RegistryConnection
from policies.wire.registry_requests import RequestCalls

__all__ = ["MAX_ANSWER_BYTES", "BlobUpload", "Progress", "RegistryClient", "RunEvents", "RunStatus"]

_TRIES = 4
_LONG_POLL_S = 20.0
_PATIENCE_S = 300.0


class RegistryClient:
    """One party's connection to an orchestrator. Not for use by several threads at once.

    Args:
        url: ``https://host:port``.
        ca: PEM file of the authority behind the orchestrator's certificate.
        token: a bearer token, for researchers, the board, the witness and the operator.
        signer: the node's key, for stations; one of the two, or neither for what is open to all.
        proxy: a CONNECT proxy to go through.

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
        proxy: Proxy | None = None,
    ) -> None:
        self._connection = RegistryConnection(url, ca, token, signer, proxy=proxy)
        self.requests = RequestCalls(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._connection.close()

    def who_am_i(self) -> Identity:
        """Who our token or signature stands for."""
        return read_answer(Identity, self._connection.call("GET", "/whoami"))

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob is there for us, so that it need not be sent."""
        return self._connection.head(digest)[0]

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
            present, received = self._connection.head(found)
            if present:
                return BlobUpload(digest=found, size=size, complete=True)
            try:
                return self._connection.send_file(target, path, found, min(received, size), size)
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
                self._connection.fetch(f"/blobs/{digest}", part, max_bytes)
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

    def holding(self) -> Holding:
        """What our uploads take, and what they are."""
        return read_answer(Holding, self._connection.call("GET", "/blobs"))

    def delete_blob(self, digest: Digest) -> None:
        """Remove a blob that we sent, or what is there of its upload; what a train or an order needs stays."""
        self._connection.call("DELETE", f"/blobs/{digest}")

    # Bundles

    def put_bundle(self, name: str, version: str, index: BundleIndex) -> None:
        """Say which blobs make up a train; all of them must have been sent."""
        self._connection.call("PUT", f"/bundles/{quote(name)}/{quote(version)}", index.encode())

    def find_bundle(self, image_config: Digest) -> BundleIndex:
        """The newest bundle with this image: which blobs a station needs."""
        return self._bundles(f"/bundles/by-image/{image_config}")[0]

    def find_bundles_of(self, manifest: Digest) -> list[BundleIndex]:
        """The bundles of a train by its manifest's digest: one per image variant."""
        return self._bundles(f"/bundles/by-manifest/{manifest}")

    # The mirror

    def get_metadata(self, name: str) -> bytes:
        """A file of the mirror's metadata; not verified here."""
        return self._connection.call("GET", f"/mirror/metadata/{quote(name)}")

    def get_target(self, path: str) -> bytes:
        """A target of the mirror; not verified here."""
        return self._connection.call("GET", f"/mirror/targets/{quote(path)}")

    def put_metadata(self, name: str, data: bytes) -> None:
        """Publish a metadata file; ``timestamp.json`` last."""
        self._connection.call("PUT", f"/mirror/metadata/{quote(name)}", data)

    def put_target(self, path: str, data: bytes) -> None:
        """Publish a target."""
        self._connection.call("PUT", f"/mirror/targets/{quote(path)}", data)

    # Statements of stations

    def put_statement(self, station: str, envelope: bytes) -> StatementAnswer:
        """State what our records are; the receipt is not verified here."""
        return self._statement(
            self._connection.call("PUT", f"/stations/{quote(station)}/statement", envelope)
        )

    def get_statement(self, station: str) -> StatementAnswer:
        """The newest statement of a station; not verified here."""
        return self._statement(self._connection.call("GET", f"/stations/{quote(station)}/statement"))

    def statements(self) -> StatedList:
        """Which statement of each station is the newest; the orchestrator's word, nobody's signature."""
        return load_json(
            StatedList,
            self._connection.call("GET", "/stations/statements"),
            what="statements",
            max_bytes=MAX_ANSWER_BYTES,
        )

    def get_heads(self) -> bytes:
        """The witness's newest document over all stations; not verified here."""
        return self._connection.call("GET", "/stations/heads")

    def put_heads(self, envelope: bytes) -> None:
        """Send the witness's document."""
        self._connection.call("PUT", "/stations/heads", envelope)

    @staticmethod
    def _statement(answer: bytes) -> StatementAnswer:
        return load_json(StatementAnswer, answer, what="statement", max_bytes=MAX_ANSWER_BYTES)

    # Orders and runs

    def post_order(self, envelope: bytes) -> Digest:
        """Give a signed order; returns the digest that names its run."""
        return read_answer(OrderAccepted, self._connection.call("POST", "/orders", envelope)).digest

    def runs(self) -> list[RunStatus]:
        """Our runs, the newest first."""
        value = parse_json(self._connection.call("GET", "/runs"), what="runs", max_bytes=MAX_ANSWER_BYTES)
        if not isinstance(value, list):
            raise WireError("the list of runs is no list")
        return [read_answer(RunStatus, canonical_json(item)) for item in value]

    def get_run(self, digest: Digest) -> RunStatus:
        """One run with its rounds."""
        return read_answer(RunStatus, self._connection.call("GET", f"/runs/{digest}"))

    def events(
        self, digest: Digest, after: int = 0, mark: str = "", wait_s: float = _LONG_POLL_S
    ) -> RunEvents:
        """Wait for rounds beyond `after`, or for another state than `mark` names."""
        target = f"/runs/{digest}/events?after={after}&mark={quote(mark)}&wait_s={wait_s:g}"
        return read_answer(RunEvents, self._connection.call("GET", target))

    def wait_run(
        self,
        digest: Digest,
        timeout_s: float,
        on_event: Callable[[RunEvents], None] | None = None,
        on_silence: Callable[[NetworkError], None] | None = None,
    ) -> RunStatus:
        """Follow a run until it is over and, where it finished, its result is complete.

        An orchestrator that does not answer (it starts again, the network is away) is asked again until the time is over.

        Args:
            digest: the order's digest.
            timeout_s: after this it raises.
            on_event: called with each batch of news.
            on_silence: called whenever the orchestrator does not answer.

        Raises:
            NetworkError: it is not over in time.
        """
        end = time.monotonic() + timeout_s
        after, mark, silent = 0, "", 0
        while (left := end - time.monotonic()) > 0:
            try:
                news = self.events(digest, after, mark, wait_s=min(left, _LONG_POLL_S))
                if on_event is not None and (news.events or news.mark != mark):
                    on_event(news)
                after, mark, silent = news.next, news.mark, 0
                if news.progress.is_over and not news.more:
                    status = self.get_run(digest)
                    if news.progress.state != "finished" or "provenance.json" in status.result:
                        return status
                    # The result is written within a moment of the last round: its completion is the next event.
            except NetworkError as error:
                # The orchestrator may be starting again; the run goes on.
                if on_silence is not None:
                    on_silence(error)
                time.sleep(min(left, 0.5 * 2 ** min(silent, 4)))
                silent += 1
        raise NetworkError(
            "the run is not over in the time given", hint="It goes on; ask again with its digest."
        )

    def stop_run(self, digest: Digest) -> None:
        """Ask that a run stops."""
        self._connection.call("POST", f"/runs/{digest}/stop")

    def resume_run(self, digest: Digest) -> None:
        """Queue a failed or stopped run again."""
        self._connection.call("POST", f"/runs/{digest}/resume")

    def get_mirror_report(self, run: Digest) -> bytes:
        """A station's own mirror report of a run, JSON."""
        return self._connection.call("GET", f"/runs/{run}/mirror-report")

    def get_result_file(
        self,
        run: Digest,
        name: str,
        to: Path,
        *,
        digest: Digest | None = None,
        on_bytes: Callable[[int], None] | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Fetch a file of a result; it appears whole and verified, or not at all.

        Args:
            run: the order's digest.
            name: the file's.
            to: where it goes; ``<to>.part`` holds what came before a break, of this process or an earlier one.
            digest: what it must be; without it a file is fetched from the start and not verified.
            on_bytes: told how many bytes are there, after each piece.
            patience_s: given up when nothing came for so long.

        Raises:
            TrustError: the bytes are not the digest's.
        """
        part = to.with_name(to.name + ".part")
        if digest is None:
            part.unlink(missing_ok=True)
        target = f"/runs/{run}/result/{quote(name, safe='')}"
        resumed = part.exists()
        self._fetch_patiently(target, part, digest, on_bytes, patience_s)
        if digest is not None and digest_of_file(part) != digest and resumed:
            # What an earlier process left was no beginning of it.
            part.unlink(missing_ok=True)
            self._fetch_patiently(target, part, digest, on_bytes, patience_s)
        if digest is not None and digest_of_file(part) != digest:
            part.unlink(missing_ok=True)
            raise TrustError(f"{name}: the bytes that came are not those of its digest")
        part.replace(to)
        sync_folder(to.parent)

    def _fetch_patiently(
        self,
        target: str,
        part: Path,
        etag: Digest | None,
        on_bytes: Callable[[int], None] | None,
        patience_s: float,
    ) -> None:
        since, held, tries = time.monotonic(), -1, 0
        while True:
            try:
                self._connection.fetch(target, part, None, etag=etag, on_bytes=on_bytes)
            except NetworkError:
                now_held = part.stat().st_size if part.exists() else 0
                if now_held > held:
                    since, held, tries = time.monotonic(), now_held, 0
                if time.monotonic() - since > patience_s:
                    raise
                time.sleep(min(0.2 * 2 ** min(tries, 6), 10.0))
                tries += 1
            else:
                return

    def _bundles(self, target: str) -> list[BundleIndex]:
        return read_answer(Bundles, self._connection.call("GET", target)).bundles
