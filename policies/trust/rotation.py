"""The next root from the one in force, by what changes. Pure; signing it is `policies.trust.root`.

A key that is replaced counts for nothing once the root is in force: not for the root, not for what its member signed before.
So what the board has published is looked at under the new charter, and what needs signatures again is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policies.charter import REGISTER_TARGET, Charter, Member
from policies.documents import canonical_json, load_json
from policies.errors import DocumentError, UsageError
from policies.policy import PublicKeyHex
from policies.purposes import PURPOSES_TARGET
from policies.refusals import Refused
from policies.trust.root import RootPlan
from policies.trust.verification import (
    parse_policy_target,
    verify_policy,
    verify_purposes,
    verify_register,
)


@dataclass(frozen=True, slots=True)
class RootChanges:
    """What is to change; nothing means a new lifetime only.

    Attributes:
        secretary_key: the new public key, hex.
        witness_key: the new public key, hex.
        members: new public keys of members, by name.
        removed: the names of members who leave.
    """

    secretary_key: PublicKeyHex | None = None
    witness_key: PublicKeyHex | None = None
    members: Mapping[str, PublicKeyHex] = field(default_factory=dict)
    removed: tuple[str, ...] = ()


def rotated(plan: RootPlan, changes: RootChanges) -> RootPlan:
    """Return the plan of the next root.

    Raises:
        UsageError: a member is not there, is named twice, or too few are left.
    """
    known = {member.name for member in plan.charter.members}
    for name in (*changes.members, *changes.removed):
        if name not in known:
            raise UsageError(
                f"the charter has no member {name}",
                hint="A new member takes a new charter: `pht-board root`.",
            )
    if both := changes.members.keys() & set(changes.removed):
        raise UsageError(f"{min(both)}: either gets a new key or leaves")
    members = tuple(
        _with_key(member, changes.members)
        for member in plan.charter.members
        if member.name not in changes.removed
    )
    charter = plan.charter.model_copy(update={"members": members})
    try:
        # A copy is not validated: the charter is read again, as a station will.
        charter = load_json(Charter, canonical_json(charter), what="the charter")
    except DocumentError as error:
        raise UsageError(
            error.message, hint="Such a change takes a new charter: `pht-board root`."
        ) from error
    return replace(
        plan,
        charter=charter,
        secretary_key=changes.secretary_key or plan.secretary_key,
        witness_key=changes.witness_key or plan.witness_key,
    )


def _with_key(member: Member, keys: Mapping[str, PublicKeyHex]) -> Member:
    return member.model_copy(update={"key": keys.get(member.name, member.key)})


def changes_in_words(before: RootPlan | None, after: RootPlan) -> tuple[str, ...]:
    """Return what the next root changes, a sentence each."""
    if before is None:
        return ("the first root",)
    old = {member.name: member for member in before.charter.members}
    new = {member.name: member for member in after.charter.members}
    lines = [
        *(f"{name} leaves" for name in old if name not in new),
        *(f"{name} joins, with the key {new[name].key}" for name in new if name not in old),
        *(f"{name} gets the key {new[name].key}" for name in new if _changed(old, new, name)),
    ]
    if after.secretary_key != before.secretary_key:
        lines.append(f"the secretary gets the key {after.secretary_key}")
    if after.witness_key != before.witness_key:
        lines.append(f"the witness gets the key {after.witness_key}")
    if (after.threshold, after.charter.threshold) != (before.threshold, before.charter.threshold):
        lines.append(
            f"it takes {after.threshold} members for a root and {after.charter.threshold} for a policy"
        )
    lines += _charter_changes(before.charter, after.charter)
    return tuple(lines) or ("a new lifetime, and the same people and keys",)


def _charter_changes(old: Charter, new: Charter) -> list[str]:
    """Return what else a charter changes: who is who, which roles it takes, who approves alone, the board's name."""
    before = {member.name: member for member in old.members}
    lines = [
        f"{member.name} is {member.role} of {member.organisation}"
        for member in new.members
        if (known := before.get(member.name)) is not None
        and (known.role, known.organisation) != (member.role, member.organisation)
    ]
    if set(old.required_roles) != set(new.required_roles):
        lines.append(f"roles among the signatures of a policy: {', '.join(new.required_roles) or 'any'}")
    lines += [
        *(
            f"the key {key} approves alone for public and synthetic data"
            for key in new.development_keys
            if key not in old.development_keys
        ),
        *(
            f"the key {key} approves nothing alone any more"
            for key in old.development_keys
            if key not in new.development_keys
        ),
    ]
    if (old.board, old.title) != (new.board, new.title):
        lines.append(f"the board is {new.title} ({new.board})")
    return lines


def _changed(old: Mapping[str, Member], new: Mapping[str, Member], name: str) -> bool:
    return name in old and old[name].key != new[name].key


def to_sign_again(listed: Mapping[str, bytes], charter: Charter) -> tuple[str, ...]:
    """Return which published documents do not bind under another charter: they lack signatures with its keys."""
    checks = {REGISTER_TARGET: verify_register, PURPOSES_TARGET: verify_purposes}
    found = []
    for path, envelope in sorted(listed.items()):
        about = parse_policy_target(path)
        if about is not None:
            if isinstance(verify_policy(envelope, *about, charter), Refused):
                found.append(f"{about[0]} version {about[1]}")
        elif path in checks and isinstance(checks[path](envelope, charter), Refused):
            found.append("the register of stations" if path == REGISTER_TARGET else "the table of purposes")
    return tuple(found)
