"""One registry over https: bounded answers, no redirects but to hosts that the hospital named, resumable downloads.

Distribution specification 1.1, "Pull". Nothing that a registry says is believed here or shown: sizes bound what is read, digests
decide. Every exchange has a deadline that grows with what moved (`policies.wire.steady`): a registry that drips holds nobody for
long, and what came before is gone on with next time.
"""

import hashlib
import os
import ssl
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from policies.documents import parse_json
from policies.errors import DocumentError, NetworkError, NotFoundError, StorageError, WireError
from policies.wire.oci_auth import MAX_TOKEN, Challenge, Credentials, read_token
from policies.wire.proxies import Proxy
from policies.wire.steady import steady_client

MAX_REDIRECTS: Final = 3

_TRIES: Final = 5
_PAUSE_S: Final = 0.2
_READ_S: Final = 60.0
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_T = TypeVar("_T")


class _PassingError(Exception):
    """An answer that may be another one in a moment."""


class RegistryClient:
    """Asks one repository of one registry.

    Args:
        url: the registry's address, https.
        repository: the repository.
        ca: the authority behind its certificate; without it, the host's own authorities.
        credentials: for the registry and its token service.
        hosts: other hosts that it may send us to.
        proxy: a CONNECT proxy to go through.
        announce: called before each request; what it raises keeps the request from being made.
    """

    def __init__(
        self,
        url: str,
        repository: str,
        *,
        ca: Path | None = None,
        credentials: Credentials | None = None,
        hosts: Collection[str] = (),
        proxy: Proxy | None = None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        self._base = url.rstrip("/") + f"/v2/{repository}/"
        self._repository = repository
        self._credentials = credentials
        self._own = _host(url)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._announce = announce
        self._stop = threading.Event()
        self._authorization: str | None = None
        self._client = steady_client(
            ssl.create_default_context(cafile=None if ca is None else str(ca)),
            read_s=_READ_S,
            connect_s=10.0,
            proxy=proxy,
        )

    def close(self) -> None:
        """Drop the connections and stop trying."""
        self._stop.set()
        self._client.close()

    def small(self, target: str, *, accept: str, limit: int) -> bytes:
        """Return an answer that fits in memory.

        Raises:
            NotFoundError: the registry has no such thing, or not for us.
            NetworkError: it does not answer, or with more than `limit` bytes.
        """

        def ask() -> bytes:
            with closing(self._get(self._base + target, {"accept": accept})) as response:
                return self._bounded(response, limit)

        return self._patiently(ask)

    def download(self, digest: str, size: int, path: Path) -> int:
        """Bring a blob into a file, whole and verified; continues what an earlier try left. Returns the bytes moved.

        Raises:
            NotFoundError, NetworkError: as above.
            WireError: other bytes than the digest says; nothing is left of them.
            StorageError: the disk.
        """
        moved = [0]
        self._patiently(lambda: self._rest(digest, size, path, moved))
        try:
            with path.open("rb") as file:
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StorageError(f"a layer cannot be read ({error.strerror})") from error
        if found != digest:
            path.unlink(missing_ok=True)
            raise WireError("a layer's bytes are not what its digest says")
        return moved[0]

    def _rest(self, digest: str, size: int, path: Path, moved: list[int]) -> None:
        have = path.stat().st_size if path.exists() else 0
        if have > size:
            path.unlink()
            have = 0
        if have == size and path.exists():
            return
        headers = {"range": f"bytes={have}-"} if have else {}
        with closing(self._get(f"{self._base}blobs/{digest}", headers)) as response:
            continued = response.status_code == httpx.codes.PARTIAL_CONTENT
            if continued and not _continues(response, have, size):
                raise NetworkError("the registry answered another range than was asked for")
            if not continued and (length := _length(response)) is not None and length != size:
                raise WireError("the registry announces another size than the image's manifest")
            _append(path, have if continued else 0, self._arriving(response), size, moved)

    def _get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Ask, as who we are, and follow to hosts that were named; the caller closes the answer."""
        asked_again = False
        left = MAX_REDIRECTS
        while True:
            response = self._send(url, headers)
            status = response.status_code
            if status in {200, 206}:
                return response
            try:
                if status == httpx.codes.UNAUTHORIZED and not asked_again and _host(url) == self._own:
                    asked_again = True
                    self._authorize(response)
                elif status in _REDIRECTS and left:
                    left -= 1
                    url = self._onward(url, response)
                else:
                    raise _named(status)
            finally:
                response.close()

    def _send(self, url: str, headers: dict[str, str]) -> httpx.Response:
        self._announce()
        sent = {"accept-encoding": "identity", **headers}
        if self._authorization is not None and _host(url) == self._own:
            sent["authorization"] = self._authorization
        response = self._client.send(self._client.build_request("GET", url, headers=sent), stream=True)
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise NetworkError("the registry packed an answer that was asked for as it is")
        return response

    def _onward(self, url: str, response: httpx.Response) -> str:
        try:
            onward = urljoin(url, str(response.headers.get("location", "")))
        except ValueError:
            onward = ""
        if len(onward) > 8192 or not onward.startswith("https://") or not self._may_ask(_host(onward)):
            raise NetworkError(
                "the registry sends us to a host that is not named",
                hint="Name it in images.registry_hosts in station.toml, where it belongs to the registry.",
            )
        return onward

    def _may_ask(self, host: str) -> bool:
        # A host that is named without a port is named for https' own.
        return host == self._own or host in self._hosts or host.removesuffix(":443") in self._hosts

    def _authorize(self, response: httpx.Response) -> None:
        challenge = Challenge.read(str(response.headers.get("www-authenticate", "")))
        credentials = self._credentials
        if challenge.scheme == "basic" and credentials is not None and credentials.user:
            self._authorization = credentials.basic
        elif challenge.scheme == "bearer":
            self._authorization = "Bearer " + (
                credentials.secret
                if credentials is not None and not credentials.user
                else self._token(challenge)
            )
        else:
            raise NetworkError(
                "the registry wants to know who asks",
                hint="Name a file with user:password in images.registry_credentials_file in station.toml.",
            )

    def _token(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith("https://") or not self._may_ask(_host(realm)):
            raise NetworkError(
                "the registry's token service is at a host that is not named",
                hint="Name it in images.registry_hosts in station.toml.",
            )
        self._announce()
        query = {"scope": f"repository:{self._repository}:pull"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if self._credentials is not None:
            headers["authorization"] = self._credentials.basic
        with self._client.stream("GET", realm, params=query, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise NetworkError(f"the registry's token service answered {response.status_code}")
            data = self._bounded(response, MAX_TOKEN)
        try:
            return read_token(parse_json(data, what="token", max_bytes=MAX_TOKEN))
        except DocumentError as error:
            raise NetworkError("the registry's token service answered no token") from error

    def _bounded(self, response: httpx.Response, limit: int) -> bytes:
        data = bytearray()
        for chunk in self._arriving(response):
            data += chunk
            if len(data) > limit:
                raise NetworkError("the registry's answer is too large")
        return bytes(data)

    def _arriving(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield an answer's bytes as they come, until the station stops."""
        for chunk in response.iter_raw():
            if self._stop.is_set():
                raise NetworkError("the connection was closed")
            yield chunk

    def _patiently(self, step: Callable[[], _T]) -> _T:
        for attempt in range(1, _TRIES + 1):
            try:
                return step()
            except (httpx.TransportError, httpx.StreamError, _PassingError) as error:
                if _is_untrusted(error):
                    raise NetworkError(
                        "the registry's certificate is not one of an authority that is trusted",
                        hint="Name the authority's file in images.registry_ca_file in station.toml.",
                    ) from error
                if attempt == _TRIES or self._stop.is_set():
                    raise NetworkError("the registry does not answer") from error
            except (httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
                raise NetworkError("the registry answered nonsense") from error
            except RuntimeError as error:
                # httpx's "client has been closed".
                raise NetworkError("the connection was closed") from error
            except OSError as error:
                raise StorageError(f"a layer cannot be stored ({error.strerror})") from error
            self._stop.wait(_PAUSE_S * 2**attempt)
        raise NetworkError("the registry does not answer")


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _host(url: str) -> str:
    """Return host and port of an https address, lower-case; empty for what is none."""
    try:
        parts = urlsplit(url)
        return f"{(parts.hostname or '').lower()}:{parts.port or 443}" if parts.scheme == "https" else ""
    except ValueError:
        return ""


def _named(status: int) -> Exception:
    if status in _PASSING:
        return _PassingError()
    if status in {401, 403}:
        return NetworkError(
            f"the registry does not let us in ({status})",
            hint="Look at images.registry_credentials_file in station.toml.",
        )
    if status == 404:
        return NotFoundError("the registry does not hold it")
    return NetworkError(f"the registry answered {status}")


def _length(response: httpx.Response) -> int | None:
    text = str(response.headers.get("content-length", ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _continues(response: httpx.Response, have: int, size: int) -> bool:
    return str(response.headers.get("content-range", "")) == f"bytes {have}-{size - 1}/{size}"


def _append(path: Path, start: int, chunks: Iterator[bytes], size: int, moved: list[int]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        file.seek(start)
        file.truncate()
        for chunk in chunks:
            start += len(chunk)
            moved[0] += len(chunk)
            if start > size:
                raise WireError("the registry sends more than the image's manifest says")
            file.write(chunk)
    if start < size:
        raise _PassingError
