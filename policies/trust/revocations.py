"""What was withdrawn: policy versions, requesters, stations. A target under the secretary's key; it only grows."""

from collections.abc import Callable
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field

from policies.documents import Moment, Name, Sequence, StrictModel, Text
from policies.policy import PublicKeyHex

REVOKED_TARGET = "revoked.json"
_Entry = TypeVar("_Entry")


class Revocation(StrictModel):
    """One policy version that the secretary withdrew, and why."""

    policy_id: Name
    version: Annotated[int, Field(ge=1)]
    reason: Text
    when: Moment


class RevokedRequester(StrictModel):
    """A requester's key that orders nothing any more, under any policy."""

    key: PublicKeyHex
    reason: Text
    when: Moment


class RevokedStation(StrictModel):
    """A station that takes part in nothing any more, whatever the register says."""

    name: Name
    reason: Text
    when: Moment


class RevocationList(StrictModel):
    """All that was withdrawn; a target under the secretary's key. What it names stays withdrawn."""

    schema_version: Literal[1]
    revoked: Sequence[Revocation] = Field(default=(), max_length=100_000)
    requesters: Sequence[RevokedRequester] = Field(default=(), max_length=100_000)
    stations: Sequence[RevokedStation] = Field(default=(), max_length=100_000)

    def joined_with(self, later: "RevocationList") -> Self:
        """Return what either of the two names: a list only grows for whoever reads it."""
        return type(self)(
            schema_version=1,
            revoked=_grown(self.revoked, later.revoked, lambda entry: (entry.policy_id, entry.version)),
            requesters=_grown(self.requesters, later.requesters, lambda entry: entry.key),
            stations=_grown(self.stations, later.stations, lambda entry: entry.name),
        )


class RememberedRevocations(RevocationList):
    """All that a reader ever saw withdrawn: each document is bounded, what many of them name together is not."""

    revoked: Sequence[Revocation] = ()
    requesters: Sequence[RevokedRequester] = ()
    stations: Sequence[RevokedStation] = ()


def _grown(
    before: tuple[_Entry, ...], later: tuple[_Entry, ...], key: Callable[[_Entry], object]
) -> tuple[_Entry, ...]:
    known = {key(entry) for entry in before}
    return (*before, *(entry for entry in later if key(entry) not in known))
