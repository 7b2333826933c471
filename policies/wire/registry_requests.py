"""What the client says to an orchestrator about requests: submit, look, take into review, decline, withdraw."""

from typing import Annotated
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field

from policies.documents import canonical_json, parse_json
from policies.errors import UsageError, WireError
from policies.train_request import Declined, Remark, RequestState, TrainRequest
from policies.wire.registry_answers import MAX_ANSWER_BYTES, Short, read_answer
from policies.wire.registry_connection import RegistryConnection


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RequestStatus(_Answer):
    """One request, and where it stands; the orchestrator's word."""

    id: Short
    owner: Short
    state: RequestState
    policy_id: Short | None = None
    policy_version: int | None = None
    submitted: Short
    changed: Short
    contested: bool = False
    """Not signed, and somebody else claims the same train and key; said to the board, to no researcher."""
    signed: bool = False
    """Whether there is an envelope; `RequestCalls.envelope` is what can be verified."""
    request: TrainRequest


class RequestChange(_Answer):
    """One change of a request's state."""

    number: int
    moment: Short
    who: Short
    before: Short
    after: Short
    code: Short
    text: Annotated[str, Field(max_length=600)]


class RequestCalls:
    """The calls about requests, over a client's connection; errors as for `RegistryClient`."""

    def __init__(self, connection: RegistryConnection) -> None:
        self._connection = connection

    def submit(self, envelope: bytes) -> RequestStatus:
        """Send a request signed by `sign_request` for our own name; the same again, while it is open, is the same request."""
        return self._one("POST", "", envelope)

    def envelope(self, request: str) -> bytes:
        """A request as its key signed it; not verified here."""
        return self._connection.call("GET", f"/requests{_path(request)}/envelope")

    def all(
        self, state: RequestState | None = None, offset: int = 0, limit: int = 100
    ) -> list[RequestStatus]:
        """The requests that we may see, the newest first."""
        query: dict[str, str | int] = {"offset": offset, "limit": limit}
        if state is not None:
            query["state"] = state.value
        answer = self._connection.call("GET", f"/requests?{urlencode(query)}")
        return [read_answer(RequestStatus, canonical_json(item)) for item in _items(answer)]

    def get(self, request: str) -> RequestStatus:
        """One request."""
        return self._one("GET", _path(request))

    def history(self, request: str) -> list[RequestChange]:
        """How a request came to where it stands, the oldest first."""
        answer = self._connection.call("GET", f"/requests{_path(request)}/history")
        return [read_answer(RequestChange, canonical_json(item)) for item in _items(answer)]

    def take_up(self, request: str, text: str = "") -> RequestStatus:
        """Take it into review (board)."""
        return self._one("POST", f"{_path(request)}/review", canonical_json(Remark(text=text)))

    def decline(self, request: str, why: Declined) -> RequestStatus:
        """Decline it (board)."""
        return self._one("POST", f"{_path(request)}/decline", canonical_json(why))

    def withdraw(self, request: str, text: str = "") -> RequestStatus:
        """Withdraw our own."""
        return self._one("POST", f"{_path(request)}/withdraw", canonical_json(Remark(text=text)))

    def _one(self, method: str, path: str, body: bytes | None = None) -> RequestStatus:
        return read_answer(RequestStatus, self._connection.call(method, f"/requests{path}", body))


def _path(request: str) -> str:
    if not (len(request) == 32 and set(request) <= set("0123456789abcdef")):
        raise UsageError("a request is named by the 32 letters and digits that `request send` prints")
    return f"/{quote(request)}"


def _items(answer: bytes) -> list[object]:
    value = parse_json(answer, what="requests", max_bytes=MAX_ANSWER_BYTES)
    if not isinstance(value, list):
        raise WireError("the orchestrator's answer is no list")
    return value
