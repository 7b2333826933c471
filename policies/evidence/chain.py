"""This run's entries in the chain of the station's egress ledger, without a word of any other run's.

`LEDGER` holds the run's entries, each as the very bytes whose SHA-256 is its digest. `DIGESTS` holds the digest of every entry
of the chain from the one before the run's first to the run's last, one per line. An entry names the digest of the one
before it, so its place between its neighbours is proved; how two others hang together is the station's signed word, until
the ledger itself or a head that somebody countersigned is held against the list.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import IO, Final

from pydantic import JsonValue

from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError
from policies.evidence.archive import DIGESTS, LEDGER, STATEMENT, Pack, PackDamageError
from policies.evidence.statement import ReleaseFact, RunFact

CHAIN = "egress"
MAX_ENTRY_BYTES = 64 * 1024
DIGEST_LINE = 65
"""64 hex digits and a line feed."""

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_TIME_TOLERANCE: Final = timedelta(seconds=5)
"""An entry and the record of its release are written in one transaction, each with its own look at the clock."""


def check_ledger(pack: Pack, run: RunFact) -> str:
    """Hold the run's ledger entries against the chain's digests and the statement's releases.

    Returns:
        What was found, in words.

    Raises:
        PackDamageError: an entry, a digest or a release is not what the statement says; says which.
    """
    releases = _by_entry(run)
    released: set[bytes] = set()
    count, last = 0, run.egress.first - 1
    with pack.open(LEDGER) as entries, pack.open(DIGESTS) as listed:
        digests = _Digests(listed, run.egress.first - 1)
        for number, body in enumerate(_lines(entries), 1):
            seq = _check_entry(body, number, last, digests, run)
            entry = parse_json(body, what=LEDGER, max_bytes=MAX_ENTRY_BYTES)
            if entry.get("type") == "release":
                if not entry.get("repeated", False):
                    _check_release(releases.pop(seq, None), entry, number)
                    released.add(_what_left(entry))
                elif _what_left(entry) not in released:
                    raise PackDamageError(
                        LEDGER, f"line {number} repeats a release that was not made before it"
                    )
            count, last = number, seq
        if digests.rest():
            raise PackDamageError(DIGESTS, "goes on after the run's last entry")
    if releases:
        raise PackDamageError(LEDGER, f"lacks entry {min(releases)}, a release of the statement")
    told = (run.egress.entries, run.egress.head.seq, run.egress.head.digest)
    if told != (count, last, digests.at):
        raise PackDamageError(STATEMENT, "signs another end of the ledger")
    return f"{count} entries, {len(run.releases)} of them releases, in the chain that ends at entry {last}, {digests.at[:19]}..."


def _by_entry(run: RunFact) -> dict[int, ReleaseFact]:
    """Return the statement's releases by their place in the ledger: one for each place, one for each round and stage."""
    found = {release.ledger_seq: release for release in run.releases}
    if not len(found) == len({(each.round, each.stage) for each in run.releases}) == len(run.releases):
        raise PackDamageError(STATEMENT, "tells of one release twice")
    return found


class _Digests:
    """The listed digests, read in step with the entries."""

    def __init__(self, file: IO[bytes], first: int) -> None:
        self._file = file
        self.seq = first
        self.at = self._next()

    def upto(self, seq: int) -> tuple[str, str]:
        """Go on to an entry's digest; return the one before it and its own."""
        before = self.at
        while self.seq < seq:
            before, self.at = self.at, self._next()
            self.seq += 1
        return before, self.at

    def rest(self) -> bool:
        return bool(self._file.read(1))

    def _next(self) -> str:
        line = self._file.read(DIGEST_LINE)
        text = line[:-1].decode("ascii", "replace")
        if len(line) != DIGEST_LINE or line[-1:] != b"\n" or set(text) - set("0123456789abcdef"):
            raise PackDamageError(DIGESTS, "ends too early, or holds something that is not a digest")
        return f"sha256:{text}"


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(MAX_ENTRY_BYTES + 2):
        if not line.endswith(b"\n"):
            raise PackDamageError(LEDGER, "holds an entry that is too long or cut off")
        yield line[:-1]


def _check_entry(body: bytes, number: int, last: int, digests: _Digests, run: RunFact) -> int:
    where = f"line {number}"
    try:
        entry: dict[str, JsonValue] = parse_json(body, what=where, max_bytes=MAX_ENTRY_BYTES)
        canonical = isinstance(entry, dict) and canonical_json(entry) == body
    except (DocumentError, ValueError):
        canonical = False
    if not canonical or entry.get("chain") != CHAIN:
        raise PackDamageError(LEDGER, f"{where} is not an entry of the ledger")
    seq = entry.get("seq")
    if not isinstance(seq, int) or not last < seq <= run.egress.head.seq:
        raise PackDamageError(LEDGER, f"{where} is not at its place")
    if number == 1 and seq != run.egress.first:
        raise PackDamageError(LEDGER, f"{where} is not the run's first entry")
    if entry.get("order_digest") != run.order.digest:
        raise PackDamageError(LEDGER, f"{where} is of another run")
    before, own = digests.upto(seq)
    if digest_of(body) != own:
        raise PackDamageError(LEDGER, f"{where} is not the entry {seq} of the listed chain")
    if entry.get("previous") != before:
        raise PackDamageError(DIGESTS, f"entry {seq} does not follow the one listed before it")
    return seq


def _check_release(release: ReleaseFact | None, entry: dict[str, JsonValue], number: int) -> None:
    if release is None:
        raise PackDamageError(STATEMENT, f"does not tell of the release in line {number} of {LEDGER}")
    told = (
        release.round, release.stage, release.reply_digest, release.reply_bytes, release.arrays_digest,
        release.arrays_bytes, release.rules_digest,
    )  # fmt: skip
    keys = ("round", "stage", "digest", "size", "arrays_digest", "arrays_size", "rules_digest")
    if told != tuple(entry.get(key) for key in keys):
        raise PackDamageError(STATEMENT, f"tells of another release than line {number} of {LEDGER}")
    try:
        time = datetime.strptime(str(entry.get("time")), _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise PackDamageError(LEDGER, f"line {number} has no time") from error
    if abs(release.recorded - time) > _TIME_TOLERANCE:
        raise PackDamageError(STATEMENT, f"tells of another time than line {number} of {LEDGER}")


def _what_left(entry: dict[str, JsonValue]) -> bytes:
    """Return what an entry says of its release, in one form: a repeat's entry names no rules, and has another time."""
    keys = ("round", "stage", "digest", "size", "arrays_digest", "arrays_size")
    return canonical_json({key: entry.get(key) for key in keys})
