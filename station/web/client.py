"""How `pht-station` reaches a service's local API over its Unix socket."""

import json
from pathlib import Path
from typing import Any

import httpx

from policies.errors import ExitCode, PhtError, RefusedError, UnavailableError

_ERRORS = {error.exit_code: error for error in PhtError.__subclasses__() if error is not RefusedError}


class LocalApi:
    """A client of one local API.

    Raises:
        UnavailableError: the token cannot be read.
    """

    def __init__(self, socket: Path, token: Path) -> None:
        self._name = socket.stem
        try:
            secret = token.read_text(encoding="ascii").strip()
        except OSError as error:
            raise UnavailableError(
                f"{token.name} cannot be read ({error.strerror})",
                hint="Name the station's folder with --home, and run this as its operator (root).",
            ) from error
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
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

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - a JSON value
        """POST a JSON document."""
        return self._read(self._send("POST", path, json=body)).json()

    def post_bytes(self, path: str, body: bytes, params: dict[str, str]) -> Any:  # noqa: ANN401 - a JSON value
        """POST a body as it is."""
        return self._read(self._send("POST", path, content=body, params=params)).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        try:
            return self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise UnavailableError(
                f"the station's {self._name} service does not answer",
                hint="Start it with `pht-station serve`.",
            ) from error

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
