"""Where repository metadata comes from: a mirror over HTTPS, or a folder.

Nothing fetched is trusted; python-tuf verifies it. Invariants: HTTPS only, no redirects, every body bounded (by the
caller, python-tuf) and every download under a deadline.
"""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from policies.errors import NetworkError, PhtError, UsageError
from policies.tls import client_context
from policies.wire.proxies import Proxy

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 20.0
DOWNLOAD_DEADLINE_S = 120.0
ORCHESTRATOR_PATH = "/api/v1/mirror"
_CHUNK_BYTES = 64 * 1024
_NOT_FOUND = 404


def fetcher_for(
    mirror: str | Path, ca: Path | None = None, proxy: Proxy | None = None
) -> tuple[str, FetcherInterface]:
    """Return the base URL of a mirror and what fetches from it.

    Args:
        mirror: an https URL, or a folder in the layout of a TUF repository (``metadata/``, ``targets/``).
        ca: PEM file of the authority that signed the mirror's certificate; None trusts the system's.
        proxy: a CONNECT proxy to go through.

    Raises:
        UsageError: the URL is not https.
    """
    if isinstance(mirror, Path):
        return mirror.absolute().as_uri(), FolderFetcher(mirror)
    return mirror_url(mirror), HttpsFetcher(ca, proxy)


def mirror_url(address: str) -> str:
    """Return where ``metadata/`` and ``targets/`` lie; an address without a path is an orchestrator's.

    Raises:
        UsageError: it is not https.
    """
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.netloc:
        raise UsageError("the mirror's address must start with https://")
    return address.rstrip("/") + (ORCHESTRATOR_PATH if parts.path in {"", "/"} else "")


class MirrorError(DownloadError):
    """The mirror is out of reach; the text is ours, fit to show to an operator."""


class FolderFetcher(FetcherInterface):
    """Serves a folder; only files inside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(unquote(urlsplit(url).path))
        if not path.is_relative_to(self._folder) or ".." in path.parts:
            raise MirrorError("outside the folder")
        if not self._folder.is_dir():
            raise MirrorError("the folder does not exist")
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise DownloadHTTPError("not found", _NOT_FOUND) from error
        except OSError as error:
            raise MirrorError("a file of the mirror cannot be read") from error


class HttpsFetcher(FetcherInterface):
    """Fetches over HTTPS with the standard library's trust or one authority's; follows no redirect."""

    def __init__(
        self, ca: Path | None = None, proxy: Proxy | None = None, deadline_s: float = DOWNLOAD_DEADLINE_S
    ) -> None:
        self._ca = ca
        self._proxy = proxy
        self._deadline_s = deadline_s
        self._client: httpx.Client | None = None

    def _open(self) -> "httpx.Client":
        if self._client is None:
            try:
                self._client = https_client(self._ca, proxy=self._proxy)
            except PhtError as error:
                raise MirrorError(error.message) from error
        return self._client

    def close(self) -> None:
        """Close the connection; the next download opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        import httpx  # noqa: PLC0415 - a program that reads from a folder starts faster

        ends = time.monotonic() + self._deadline_s
        try:
            with self._open().stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    _drain(response)
                    raise DownloadHTTPError("the mirror refused", response.status_code)
                for chunk in response.iter_raw(_CHUNK_BYTES):
                    if time.monotonic() > ends:
                        raise SlowRetrievalError("the mirror sends too slowly")
                    yield chunk
        except NetworkError as error:
            # The proxy's refusal.
            raise MirrorError(error.message) from error
        except httpx.HTTPError as error:
            raise MirrorError(f"the mirror does not answer ({type(error).__name__})") from error


def _drain(response: "httpx.Response") -> None:
    """Read a short error page to its end, so that the connection serves the next request too."""
    left = _CHUNK_BYTES
    for chunk in response.iter_raw(_CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            return


def https_client(ca: Path | None, token: str | None = None, proxy: Proxy | None = None) -> "httpx.Client":
    """Return an HTTPS client as all of this package uses it: the environment says nothing about where to connect.

    Raises:
        TrustError: `ca` is not a certificate, or an expired one.
        NotFoundError: there is no such file.
    """
    from policies.wire.steady import steady_client  # noqa: PLC0415

    context = ssl.create_default_context() if ca is None else client_context(ca)
    headers = {"Accept-Encoding": "identity", "User-Agent": "pht"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return steady_client(
        context, read_s=READ_TIMEOUT_S, connect_s=CONNECT_TIMEOUT_S, headers=headers, proxy=proxy
    )
