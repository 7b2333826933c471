"""The policies that a board's repository lists, to read and to compare with. Trusts the folder: the board's own."""

import re
from collections.abc import Iterator
from pathlib import Path

from policies.charter import POLICY_PAYLOAD_TYPE, policy_target
from policies.documents import load_yaml
from policies.errors import NotFoundError, PhtError, UsageError
from policies.policy import Policy
from policies.signing import unsafe_payload
from policies.trust.repository import BoardRepository
from policies.trust.verification import parse_policy_target

_NAMED = re.compile(r"([a-z0-9-]{1,64})@([1-9][0-9]{0,8})")


def listed_policies(repository: Path) -> Iterator[Policy]:
    """Yield every listed policy that can be read.

    Raises:
        TrustError: this is no repository whose root is in force.
    """
    board = BoardRepository(repository)
    # In a folder that is none, nothing would look like nothing approved.
    board.root.charter()
    for path, data in sorted(board.listed().items()):
        if parse_policy_target(path) is None:
            continue
        try:
            yield load_yaml(Policy, unsafe_payload(data, POLICY_PAYLOAD_TYPE), what=path)
        except PhtError:
            # What cannot be read is not in force either; `pht-board status` says why.
            continue


def policy_of(repository: Path, name: str) -> Policy:
    """Return the listed policy ``id@version``; raises as `policy_payload`."""
    return load_yaml(Policy, policy_payload(repository, name), what=name)


def policy_in_force(repository: Path, policy_id: str) -> Policy | None:
    """Return the listed version of a policy; None where none is listed, or where the folder is no repository."""
    for (listed_id, version), data in _envelopes(repository).items():
        if listed_id == policy_id:
            payload = unsafe_payload(data, POLICY_PAYLOAD_TYPE)
            return load_yaml(Policy, payload, what=policy_target(policy_id, version))
    return None


def policy_payload(repository: Path, name: str) -> bytes:
    """Return the signed bytes of the listed policy ``id@version``.

    Raises:
        UsageError: that is no such name.
        NotFoundError: it is not listed.
    """
    match = _NAMED.fullmatch(name)
    if match is None:
        raise UsageError(f"{name}: name a policy as id@version, for example cxr-classification@1")
    found = _envelopes(repository)
    data = found.get((match[1], int(match[2])))
    if data is None:
        there = ", ".join(f"{policy_id}@{version}" for policy_id, version in sorted(found)) or "none"
        raise NotFoundError(f"{name}: not listed", hint=f"Listed: {there}.")
    return unsafe_payload(data, POLICY_PAYLOAD_TYPE)


def _envelopes(repository: Path) -> dict[tuple[str, int], bytes]:
    """Return the signed policy files that are listed, by id and version."""
    listed = BoardRepository(repository).listed()
    return {key: data for path, data in listed.items() if (key := parse_policy_target(path))}
