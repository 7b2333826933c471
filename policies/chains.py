"""Hash chains: how an append-only record is linked, and how it is checked; the one mechanism behind every audit of ours.

An entry is ``(seq, body, digest)``. The body is canonical JSON and carries its own ``seq``, the chain's name, the digest of
the body before it (`GENESIS` for the first) and a salt; the digest is SHA-256 of the body. Digests leave in heads; the salt
keeps who has them from finding out by guessing what an entry says. So a changed byte, a missing, doubled or reordered entry is
found and located. What this alone cannot find is a chain cut off at its end, or rewritten as a whole: for that a head is
compared that somebody else keeps.

Pure: stores nothing, knows no table and no clock.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError, StateError
from policies.refusals import Permitted

GENESIS: Final = "sha256:" + "0" * 64
MAX_BODY_BYTES: Final = 64 * 1024
LINK_KEYS: Final = frozenset({"seq", "chain", "previous", "salt"})
"""What an entry says of its own place; those made before there were salts have none."""
_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of a chain: how many entries it has and the digest of the last; (0, `GENESIS`) when empty."""

    seq: int
    digest: str


EMPTY: Final = ChainHead(0, GENESIS)


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """Where a chain does not hold, and why.

    Attributes:
        seq: the first entry that is not what it should be.
        problem: one sentence, made here.
    """

    seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class Link:
    """One entry as stored: what `verify_links` asks."""

    seq: int
    body: bytes
    digest: str


def next_link(name: str, content: Mapping[str, JsonValue], head: ChainHead) -> Link:
    """Return the entry that follows `head`.

    Args:
        name: the chain's name; stands in every body, so that an entry of one chain is not one of another.
        content: what the entry says.
        head: the end of the chain so far.

    Raises:
        StateError: the content uses a key of the chain, or is too large.
    """
    if LINK_KEYS & content.keys():
        raise StateError(f"{name}: an entry may not name its own links")
    links = {
        "chain": name,
        "seq": head.seq + 1,
        "previous": head.digest,
        "salt": secrets.token_hex(_SALT_BYTES),
    }
    body = canonical_json({**content, **links})
    if len(body) > MAX_BODY_BYTES:
        raise StateError(f"{name}: an entry of {len(body)} bytes is over {MAX_BODY_BYTES}")
    return Link(head.seq + 1, body, digest_of(body))


def verify_links(
    name: str, links: Iterable[Link], known: ChainHead | None = None
) -> Permitted[ChainHead] | ChainBreak:
    """Check a chain from its first entry.

    1. Entries count from 1 without gap.
    2. Each digest is that of its body, and the body is one canonical JSON object of this chain with its own number.
    3. Each body names the digest of the one before it.
    4. The chain reaches the head known from elsewhere, and passes through it.

    Args:
        name: the chain's name.
        links: the entries in order.
        known: a head seen earlier, for example one that was signed and kept elsewhere.
    """
    head = EMPTY
    seen_known = known is None or known == EMPTY
    for link in links:
        expected = head.seq + 1
        if link.seq != expected:
            return ChainBreak(expected, f"entry {expected} is missing")
        if problem := _problem_with(name, link, head):
            return ChainBreak(expected, problem)
        head = ChainHead(link.seq, link.digest)
        if known is not None and known.seq == head.seq:
            if known.digest != head.digest:
                return ChainBreak(head.seq, "the entry is not the one whose digest was kept elsewhere")
            seen_known = True
    if not seen_known and known is not None:
        return ChainBreak(
            head.seq + 1, f"the chain ends here; entries up to {known.seq} were known elsewhere"
        )
    return Permitted(head)


def read_body(name: str, body: bytes) -> dict[str, JsonValue]:
    """Return an entry's content with its links.

    Raises:
        StateError: it is not an entry.
    """
    try:
        value = parse_json(body, what=name, max_bytes=MAX_BODY_BYTES)
    except DocumentError as error:
        raise StateError(f"{name}: an entry is not JSON") from error
    if not isinstance(value, dict):
        raise StateError(f"{name}: an entry is not a JSON object")
    return value


def _problem_with(name: str, link: Link, before: ChainHead) -> str | None:
    if digest_of(link.body) != link.digest:
        return "the entry's bytes are not those of its digest"
    try:
        value = read_body(name, link.body)
        canonical = canonical_json(value) == link.body
    except (StateError, ValueError):
        return "the entry is not JSON"
    if not canonical or value.get("chain") != name or value.get("seq") != link.seq:
        return "the entry is not of this chain and place"
    if value.get("previous") != before.digest:
        return "the entry does not follow the one before it"
    return None
