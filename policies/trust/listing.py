"""What a publication lists, and under which file names. Pure."""

from tuf.api.metadata import TargetFile

from policies.charter import policy_target
from policies.documents import load_json
from policies.trust.revocations import REVOKED_TARGET, RevocationList
from policies.trust.verification import parse_opinion_target, parse_policy_target


def next_listing(before: dict[str, bytes], staged: dict[str, bytes]) -> dict[str, bytes]:
    """Return what is listed next: all that was and what is staged, less what is withdrawn or replaced.

    An opinion goes where the policy goes that it is about.
    """
    listing = before | staged
    revoked: set[tuple[str, int]] = set()
    if REVOKED_TARGET in listing:
        entries = load_json(RevocationList, listing[REVOKED_TARGET], what=REVOKED_TARGET).revoked
        revoked = {(entry.policy_id, entry.version) for entry in entries}
    keys = {path: parse_policy_target(path) for path in listing}
    latest: dict[str, int] = {}
    for key in keys.values():
        if key is not None:
            latest[key[0]] = max(latest.get(key[0], 0), key[1])
    left = {
        path: data
        for path, data in listing.items()
        if (key := keys[path]) is None or (key not in revoked and key[1] == latest[key[0]])
    }
    return {
        path: data
        for path, data in left.items()
        if (about := parse_opinion_target(path)) is None or policy_target(about[0], about[1]) in left
    }


def hashed(path: str, info: TargetFile) -> str:
    """Return the file name of a target under consistent snapshots (TUF specification 6.2.2)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{info.hashes['sha256']}.{name}" if folder else f"{info.hashes['sha256']}.{name}"
