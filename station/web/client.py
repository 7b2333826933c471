"""How `pht-station` reaches a service's local API over its Unix socket."""

import json
import stat
from pathlib import Path
from typing import IO, Any

import httpx

from policies.errors import ExitCode, PhtError, RefusedError, TrustError, UnavailableError

_ERRORS = {error.exit_code: error for error in PhtError.__subclasses__() if error is not RefusedError}


class LocalApi:
    """A client of one local API.

    Speaks only to a socket of the user who owns the token: the services share the folder, and one must not take in what is
    meant for another.

    Raises:
        UnavailableError: the token cannot be read, or the service does not run.
        TrustError: the socket is another user's.
    """

    def __init__(self, socket: Path, token: Path) -> None:
        self._name = {"api": "compute"}.get(socket.stem, socket.stem)
        try:
            secret = token.read_text(encoding="ascii").strip()
            owner = token.stat().st_uid
        except (OSError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"{token.name} cannot be read",
                hint="Name the station's folder with --home, and run this as its operator (root).",
            ) from error
        try:
            status = socket.lstat()
        except OSError as error:
            raise self._silent() from error
        if status.st_uid != owner or not stat.S_ISSOCK(status.st_mode):
            raise TrustError(
                f"{socket.name} is not the socket of the station's {self._name} service",
                hint="Stop the station, remove the file, and find out who made it.",
            )
        self._client = httpx.Client(
            # No connection outlives its answer: nobody is left to close it.
            transport=httpx.HTTPTransport(uds=str(socket), limits=httpx.Limits(max_keepalive_connections=0)),
            base_url="http://station",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=httpx.Timeout(600.0, connect=5.0),
            trust_env=False,
        )

    def get(self, path: str) -> Any:  # noqa: ANN401 - a JSON value
        """GET a JSON document."""
        return self._read(self._send("GET", path)).json()

    def get_bytes(self, path: str) -> bytes:
        """GET a body as it is."""
        return self._read(self._send("GET", path)).content

    def download(self, path: str, file: IO[bytes]) -> None:
        """GET a body as it is, into a file, a piece at a time."""
        try:
            with self._client.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                for chunk in self._read(response).iter_bytes():
                    file.write(chunk)
        except httpx.TransportError as error:
            raise self._silent() from error

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - a JSON value
        """POST a JSON document."""
        return self._read(self._send("POST", path, json=body)).json()

    def post_for_bytes(self, path: str) -> bytes:
        """POST nothing, and return the body as it is."""
        return self._read(self._send("POST", path)).content

    def post_bytes(self, path: str, body: bytes, params: dict[str, str]) -> Any:  # noqa: ANN401 - a JSON value
        """POST a body as it is."""
        return self._read(self._send("POST", path, content=body, params=params)).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        try:
            return self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._silent() from error

    def _silent(self) -> UnavailableError:
        return UnavailableError(
            f"the station's {self._name} service does not answer", hint="Start it with `pht-station serve`."
        )

    @staticmethod
    def _read(response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            problem = response.json()
            title, hint, code = str(problem["title"]), str(problem.get("detail", "")), str(problem["code"])
            exit_code = ExitCode(problem["exit_code"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            raise UnavailableError(f"the station answered {response.status_code}") from None
        if exit_code is ExitCode.REFUSED:
            raise RefusedError(code, title, hint=hint)
        raise _ERRORS.get(exit_code, PhtError)(title, hint=hint)
