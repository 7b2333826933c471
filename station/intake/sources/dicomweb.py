"""A PACS over DICOMweb (PS3.18): searched by QIDO-RS, retrieved from by WADO-RS.

The same questions as by C-FIND, so that a retrieval does not care: `asking` gives what `PacsClient.asking` gives. Own client over
httpx: a library that returns a whole answer at once cannot bound it. Invariants: no redirect is followed, no proxy used and no
encoding undone; an answer is read under ceilings of bytes, parts and time; every failure is a `PacsFault`.
"""

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset

from policies.documents import parse_json
from policies.errors import DocumentError, StateError
from station.intake.sources.multipart import (
    MultipartError,
    Part,
    PartTooLargeError,
    boundary_of,
    read_parts,
)
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.settings.dicom import PacsSettings

MAX_ANSWERS = 50_000
MAX_INSTANCE_BYTES = 256 << 20
_PAGE = 1000
_MAX_ANSWER_BYTES = 64 << 20
_CHUNK_BYTES = 256 << 10
_SLOWEST_BYTES_PER_S = 10_240
_MAX_VALUE_CHARACTERS = 64
_READ = {
    "0020000D": "StudyInstanceUID", "00080050": "AccessionNumber", "00080020": "StudyDate",
    "0020000E": "SeriesInstanceUID", "00080060": "Modality", "00180015": "BodyPartExamined",
    "00201209": "NumberOfSeriesRelatedInstances", "00080018": "SOPInstanceUID", "00080016": "SOPClassUID",
}  # fmt: skip
_TAGS = {keyword: tag for tag, keyword in _READ.items()}
_WADO_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_QIDO_ACCEPT = "application/dicom+json"


@dataclass(frozen=True, slots=True)
class WebAccess:
    """How the server is reached, read from the settings' files.

    Attributes:
        url: of the DICOMweb root, without a slash at its end.
        headers: that show who asks.
        context: for TLS; None for plain HTTP.
    """

    url: str
    headers: dict[str, str]
    auth: tuple[str, str] | None
    context: ssl.SSLContext | None


class WebSession:
    """A connection to the server, as `PacsAssociation` is one to a PACS; made by `DicomwebClient` only."""

    def __init__(self, client: httpx.Client, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self.alive = True

    def echo(self) -> None:
        """See that it answers a search.

        Raises:
            PacsError: it does not.
        """
        self._page("/studies", {"limit": "1"})

    def find(self, identifier: Dataset) -> list[Dataset]:
        """Return every answer to a query (QIDO-RS), asked for as C-FIND asks.

        Raises:
            PacsError: the answer is not whole, cannot be read, or too long.
        """
        path, query = _search(identifier)
        answers: dict[tuple[str, ...], Dataset] = {}
        while True:
            page, more = self._page(path, {**query, "limit": str(_PAGE), "offset": str(len(answers))})
            before = len(answers)
            answers.update((_key(answer), answer) for answer in page)
            if len(answers) > MAX_ANSWERS:
                raise PacsError(PacsFault.TOO_MANY_ANSWERS)
            if len(page) < _PAGE and not more:
                return list(answers.values())
            if len(answers) == before:
                # It says there is more and gives the same again: what it holds back nobody knows.
                raise PacsError(PacsFault.TOO_MANY_ANSWERS)

    @contextmanager
    def series(self, study_uid: str, series_uid: str) -> Iterator[Iterator[Part]]:
        """Retrieve a series (WADO-RS): its instances, each as it is whole.

        Raises:
            PacsError: it refused, the answer is not what it should be, or the connection was lost.
        """
        path = f"/studies/{study_uid}/series/{series_uid}"
        with self._answer("GET", path, {}, _WADO_ACCEPT) as response:
            _require_found(response, PacsFault.FAILED)
            try:
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                yield read_parts(self._chunks(response), boundary, MAX_INSTANCE_BYTES)
            except PartTooLargeError:
                fault = PacsFault.TOO_LARGE
            except MultipartError:
                fault = PacsFault.ANSWER_UNUSABLE
            else:
                return
        raise PacsError(fault)

    def _page(self, path: str, query: dict[str, str]) -> tuple[list[Dataset], bool]:
        with self._answer("GET", path, query, _QIDO_ACCEPT) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                return [], False
            _require_found(response, PacsFault.NOT_OFFERED)
            data = bytearray()
            for chunk in self._chunks(response):
                data += chunk
                if len(data) > _MAX_ANSWER_BYTES:
                    raise PacsError(PacsFault.TOO_MANY_ANSWERS)
            # PS3.18 section 8.3.4.4: how a server says that it holds answers back.
            more = response.headers.get("Warning", "").lstrip().startswith("299")
        return _answers(bytes(data)), more

    @contextmanager
    def _answer(self, method: str, path: str, query: dict[str, str], accept: str) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, path, params=query, headers={"Accept": accept}) as response:
                _require_answer(response)
                yield response
                return
        except (httpx.ConnectError, httpx.ConnectTimeout):
            fault = PacsFault.UNREACHABLE
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            fault = PacsFault.LOST
        # Outside the handlers: httpx's text quotes the address.
        raise PacsError(fault)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        begun, received = time.monotonic(), 0
        for chunk in response.iter_raw(_CHUNK_BYTES):
            received += len(chunk)
            if time.monotonic() - begun > self._timeout_s + received / _SLOWEST_BYTES_PER_S:
                raise PacsError(PacsFault.LOST)
            yield chunk


class DicomwebClient:
    """Makes sessions with one server.

    Args:
        settings: the section of station.toml.
        access: how it is reached.
        sop_classes: the images that are kept.
    """

    def __init__(self, settings: PacsSettings, access: WebAccess, sop_classes: Sequence[str]) -> None:
        self._settings = settings
        self._access = access
        self.sop_classes = tuple(sop_classes)

    @contextmanager
    def asking(self) -> Iterator[WebSession]:
        """Open a session; nothing is sent yet."""
        timeout_s = float(self._settings.timeout_s)
        with httpx.Client(
            base_url=self._access.url,
            headers={**self._access.headers, "Accept-Encoding": "identity"},
            auth=self._access.auth,
            verify=self._access.context if self._access.context is not None else False,
            timeout=httpx.Timeout(timeout_s, connect=min(30.0, timeout_s)),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1),
        ) as client:
            session = WebSession(client, timeout_s)
            try:
                yield session
            finally:
                session.alive = False


def web_access(home: Path, settings: PacsSettings) -> WebAccess:
    """Read what the settings name: authority, certificate, password or token.

    Raises:
        StateError: a file cannot be read, or others may read a secret.
    """
    context: ssl.SSLContext | None = None
    if settings.tls != "none":
        try:
            context = ssl.create_default_context(cafile=str(home / (settings.tls_ca_file or "")))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
                context.load_cert_chain(home / settings.tls_certificate_file, home / settings.tls_key_file)
        except (OSError, ssl.SSLError) as error:
            raise StateError(
                "DICOMweb: a TLS file cannot be read", hint="See [[pacs]] in station.toml."
            ) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'http' if context is None else 'https'}://{host}:{settings.port}{settings.web_path.rstrip('/')}"
    headers, auth = {}, None
    if settings.web_token_file is not None:
        headers["Authorization"] = f"Bearer {_secret(home / settings.web_token_file)}"
    elif settings.web_user is not None and settings.web_password_file is not None:
        auth = (settings.web_user, _secret(home / settings.web_password_file))
    return WebAccess(url, headers, auth, context)


def _secret(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise StateError(f"{path.name}: others may read the file", hint="chmod 0600 it.")
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{path.name}: cannot be read", hint="See [[pacs]] in station.toml.") from error
    if not secret or not secret.isprintable():
        raise StateError(f"{path.name}: holds no secret")
    return secret


def _require_answer(response: httpx.Response) -> None:
    """Refuse what is no answer to go on with.

    Raises:
        PacsError: by status; or the body is encoded, which could make it any size.
    """
    status = response.status_code
    if response.is_redirect or response.has_redirect_location:
        raise PacsError(PacsFault.REDIRECTED)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.PROXY_AUTHENTICATION_REQUIRED}:
        raise PacsError(PacsFault.NOT_AUTHORISED)
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        raise PacsError(PacsFault.BUSY)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise PacsError(PacsFault.FAILED)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PacsError(PacsFault.ANSWER_UNUSABLE)


def _require_found(response: httpx.Response, absent: PacsFault) -> None:
    if response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.GONE}:
        raise PacsError(absent)
    if response.status_code != httpx.codes.OK:
        raise PacsError(PacsFault.REFUSED)


def _search(identifier: Dataset) -> tuple[str, dict[str, Any]]:
    """Return path and query for a C-FIND identifier (PS3.18 section 10.6)."""
    keys = {
        element.keyword: "" if element.value is None else str(element.value)
        for element in identifier
        if element.keyword not in {"QueryRetrieveLevel", "SpecificCharacterSet"}
    }
    path = "/studies"
    if identifier.QueryRetrieveLevel in {"SERIES", "IMAGE"}:
        path += f"/{keys.pop('StudyInstanceUID')}/series"
    if identifier.QueryRetrieveLevel == "IMAGE":
        path += f"/{keys.pop('SeriesInstanceUID')}/instances"
    query: dict[str, Any] = {keyword: value for keyword, value in keys.items() if value}
    query["includefield"] = [
        _TAGS[keyword] for keyword, value in keys.items() if not value and keyword in _TAGS
    ]
    return path, query


def _answers(data: bytes) -> list[Dataset]:
    """Read DICOM JSON (PS3.18 annex F): the few attributes that were asked for, as short texts."""
    try:
        listed = parse_json(data, what="QIDO-RS answer", max_bytes=_MAX_ANSWER_BYTES)
    except DocumentError:
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise PacsError(PacsFault.ANSWER_UNUSABLE)
    return [_dataset(one) for one in listed]


def _dataset(answer: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    for tag, keyword in _READ.items():
        element = answer.get(tag)
        values = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(values, list) or not values:
            continue
        value = values[0]
        number = isinstance(value, int) and not isinstance(value, bool)
        text = str(value) if number or isinstance(value, str) else None
        counted = keyword == "NumberOfSeriesRelatedInstances"
        if text is None or len(text) > _MAX_VALUE_CHARACTERS:
            raise PacsError(PacsFault.ANSWER_UNUSABLE)
        if counted and not (text.isascii() and text.isdigit() and len(text) < 10):
            continue
        setattr(dataset, keyword, text)
    return dataset


def _key(answer: Dataset) -> tuple[str, ...]:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return tuple(str(answer.get(keyword) or "") for keyword in keywords)
