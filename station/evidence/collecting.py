"""Collects the evidence of one run into a pack, from one consistent view of the station's records.

A pack is a function of the run: collected twice, it is the same bytes, since it tells of the station as it was after the run's
last entry. Nothing of a patient is in it: what the audit says stays here, but for the codes of refusals and the chain's end.
Memory does not grow with the ledger: it is read a page at a time into files.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import JsonValue
from securesystemslib.signer import CryptoSigner
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_TARGET, Charter
from policies.documents import digest_of, digest_of_file
from policies.errors import NotFoundError, StateError, TrustError
from policies.evidence.archive import (
    CRATE,
    DIGESTS,
    LEDGER,
    ORDER,
    POLICY,
    STATEMENT,
    TARGETS,
    TRAIN,
    TRUST,
    write_pack,
)
from policies.evidence.crate import CrateFacts, File, crate_metadata
from policies.evidence.repository import RepositoryThen, verify_repository
from policies.evidence.statement import (
    PAYLOAD_TYPE,
    UNTOLD_CODES,
    Head,
    LedgerFact,
    OrderFact,
    PolicyFact,
    PrivacyFact,
    ReleaseFact,
    RepositoryFact,
    RunFact,
    RunStatement,
)
from policies.order import unverified_order
from policies.refusals import Refused
from policies.signing import Signer, sign_envelope, unsafe_payload
from policies.trust.client import read_root
from policies.trust.verification import (
    PolicyInForce,
    parse_policy_target,
    verify_policy,
    verify_register,
)
from station.audit.chain import GENESIS, read_body
from station.audit.log import TIME_FORMAT
from station.audit.tables import AuditRow
from station.egress.records.tables import LedgerRow, ReleaseRow
from station.evidence.kept import KeptTerms, kept_terms
from station.runs.states import RunState
from station.runs.tables import OrderRow
from station.storage.database import Database

_PAGE = 1000
_FAILED = frozenset({RunState.FAILED.value, RunState.STOPPED.value, RunState.REFUSED.value})


@dataclass(frozen=True, slots=True)
class _Terms:
    """What was kept, verified again as it is collected: a pack that would not verify is not made."""

    kept: KeptTerms
    policy: PolicyInForce
    charter: Charter
    organisation: str
    repository: RepositoryThen


@dataclass(frozen=True, slots=True)
class _Entries:
    """The run's entries in the ledger: their places, when the last was made, and each release's rules by its place."""

    fact: LedgerFact
    last: datetime
    rules: dict[int, str | None]


@dataclass(frozen=True, slots=True)
class EvidenceCollector:
    """Makes packs.

    Args:
        station: the station's name.
        database: its compute database.
        identity: signs the statement.
        trust: the trust folder, with what was kept of each run.
    """

    station: str
    database: Database
    identity: Ed25519PrivateKey
    trust: Path

    def collect(self, order_digest: str, out: Path) -> None:
        """Write the pack of an order's run.

        1. What was kept when it was admitted verifies still.
        2. The records, in one consistent view; the ledger's two files are written beside `out`.
        3. The crate's description, with every file's digest; the statement, with the description's digest too; its signature.
        4. The zip.

        Args:
            order_digest: of an order that was admitted here.
            out: the file to write, whole or not at all; its folder takes what is on its way.

        Raises:
            NotFoundError: no such run here, or it never was admitted.
            StateError: the records do not fit together.
            StorageError: it cannot be written.
        """
        terms = self._terms(order_digest, kept_terms(self.trust, order_digest))
        with TemporaryDirectory(dir=out.parent, prefix=".evidence-") as folder:
            scratch = Path(folder)
            with self.database.read() as session:
                order, run = self._records(session, order_digest, terms, scratch)
            members = _documents(terms, order.envelope)
            members |= {LEDGER: scratch / LEDGER, DIGESTS: scratch / DIGESTS}
            files = {name: _measured(content) for name, content in members.items()}
            facts = CrateFacts(
                run, terms.policy.policy, terms.charter, terms.organisation, run.state in _FAILED
            )
            members[CRATE] = crate_metadata(facts, files)
            files[CRATE] = _measured(members[CRATE])
            run = run.model_copy(
                update={"files": {name: file.digest for name, file in sorted(files.items())}}
            )
            members[STATEMENT] = sign_envelope(RunStatement.about(run).encode(), PAYLOAD_TYPE, self._signer())
            write_pack(out, members)

    def _terms(self, order_digest: str, kept: KeptTerms) -> _Terms:
        root, metadata = _metadata(kept)
        try:
            repository = verify_repository(root, metadata, kept.admitted_at)
        except TrustError as error:
            raise StateError("what was kept of this order does not verify", hint=error.message) from error
        register = verify_register(kept.targets.get(REGISTER_TARGET, "").encode(), repository.charter)
        station = None if isinstance(register, Refused) else register.value.find(self.station)
        if station is None:
            raise StateError("what was kept of this order names this station in no register")
        if station.identity_key != self._signer().public_hex:
            raise StateError(
                "the register that this run was admitted under gives the station another identity key",
                hint="Sign with the key of then: restore it from a backup.",
            )
        path = next(name for name in kept.targets if parse_policy_target(name))
        policy = verify_policy(
            kept.targets[path].encode(), *(parse_policy_target(path) or ("", 0)), repository.charter
        )
        if isinstance(policy, Refused):
            raise StateError(f"what was kept of {order_digest[:19]} holds no policy in force")
        return _Terms(kept, policy.value, repository.charter, station.organisation, repository)

    def _records(
        self, session: Session, order_digest: str, terms: _Terms, folder: Path
    ) -> tuple[OrderRow, RunFact]:
        order = session.get(OrderRow, order_digest)
        if order is None:
            raise NotFoundError("no such order at this station", hint="`pht-station runs` lists them.")
        document = unverified_order(order.envelope)
        entries = _ledger(session, order_digest, folder)
        audit, last_event, refusals = _audit(session, order_digest)
        versions = terms.repository.versions
        return order, RunFact(
            station=self.station,
            order=OrderFact(digest=order_digest, order_id=document.order_id),
            policy=PolicyFact(id=order.policy_id, version=order.policy_version, digest=terms.policy.digest),
            manifest_digest=document.manifest_digest,
            image_config_digest=document.image_config_digest,
            stages=document.stages,
            rounds=document.rounds,
            state=order.state,
            first_seen=order.first_seen,
            finished=order.finished,
            as_of=max(entries.last, last_event),
            repository=RepositoryFact(
                root_version=versions["root"],
                timestamp_version=versions["timestamp"],
                snapshot_version=versions["snapshot"],
                targets_version=versions["targets"],
                admitted_at=terms.kept.admitted_at,
            ),
            releases=tuple(_releases(session, order_digest, entries.rules)),
            refusals=refusals,
            privacy_spent=PrivacyFact(),
            egress=entries.fact,
            audit=audit,
            files={},
        )

    def _signer(self) -> Signer:
        return Signer(self.identity.public_key().public_bytes_raw().hex(), CryptoSigner(self.identity))


def _metadata(kept: KeptTerms) -> tuple[bytes, dict[str, bytes]]:
    """Return the pinned root, and the repository's metadata by the names that a pack gives it."""
    root = kept.root.encode()
    files = {f"{read_root(root)[0].version}.root.json": root}
    files |= {f"{version}.root.json": text.encode() for version, text in kept.roots.items()}
    files |= {f"{role}.json": text.encode() for role, text in kept.metadata.items()}
    return root, files


def _documents(terms: _Terms, order: bytes) -> dict[str, bytes | Path]:
    members: dict[str, bytes | Path] = {TRUST + name: data for name, data in _metadata(terms.kept)[1].items()}
    members |= {TARGETS + path: text.encode() for path, text in terms.kept.targets.items()}
    members[POLICY] = unsafe_payload(terms.policy.envelope, POLICY_PAYLOAD_TYPE)
    members[TRAIN] = terms.kept.manifest.encode()
    members[ORDER] = order
    return members


def _measured(content: bytes | Path) -> File:
    if isinstance(content, bytes):
        return File(len(content), digest_of(content))
    return File(content.stat().st_size, digest_of_file(content))


def _ledger(session: Session, order_digest: str, folder: Path) -> _Entries:
    """Write the run's entries, and the digests of the chain from the one before the first to the last."""
    # In canonical JSON a quotation mark inside a text is escaped: these bytes are the key and its value, nothing else.
    mark = f'"order_digest":"{order_digest}"'.encode()
    query = select(LedgerRow.seq, LedgerRow.body, LedgerRow.digest).where(
        func.instr(LedgerRow.body, mark) > 0
    )
    rules: dict[int, str | None] = {}
    first = count = 0
    head, last = Head(seq=0, digest=GENESIS), b""
    with (folder / LEDGER).open("wb") as file:
        for seq, body, digest in session.execute(
            query.order_by(LedgerRow.seq).execution_options(yield_per=_PAGE)
        ):
            file.write(body + b"\n")
            entry = read_body("egress", body)
            if entry.get("type") == "release" and not entry.get("repeated", False):
                named = entry.get("rules_digest")
                rules[seq] = named if isinstance(named, str) else None
            first, count = first or seq, count + 1
            head, last = Head(seq=seq, digest=digest), body
    if count == 0:
        raise StateError("the egress ledger names no message of this order")
    _write_digests(session, first, head.seq, folder / DIGESTS)
    return _Entries(
        LedgerFact(first=first, entries=count, head=head), _time(read_body("egress", last)), rules
    )


def _write_digests(session: Session, first: int, last: int, path: Path) -> None:
    query = (
        select(LedgerRow.digest)
        .where(LedgerRow.seq >= first - 1, LedgerRow.seq <= last)
        .order_by(LedgerRow.seq)
    )
    with path.open("w", encoding="ascii") as file:
        if first == 1:
            file.write(GENESIS.removeprefix("sha256:") + "\n")
        for digest in session.scalars(query.execution_options(yield_per=_PAGE)):
            file.write(digest.removeprefix("sha256:") + "\n")


def _audit(session: Session, order_digest: str) -> tuple[Head, datetime, dict[str, int]]:
    """Return the audit's end after the run's last event, that event's time, and how often each refusal is named."""
    mark = f'"object":"{order_digest}"'.encode()
    query = select(AuditRow.seq, AuditRow.body, AuditRow.digest).where(func.instr(AuditRow.body, mark) > 0)
    refusals: Counter[str] = Counter()
    head, last = Head(seq=0, digest=GENESIS), b""
    for seq, body, digest in session.execute(query.order_by(AuditRow.seq).execution_options(yield_per=_PAGE)):
        head, last = Head(seq=seq, digest=digest), body
        event = read_body("audit", body)
        codes = event.get("codes")
        if event.get("outcome") in {"refused", "failed"} and isinstance(codes, list):
            refusals.update(str(code) for code in codes if code not in UNTOLD_CODES)
    if not last:
        raise StateError("the audit names no event of this order")
    return head, _time(read_body("audit", last)), dict(sorted(refusals.items()))


def _releases(session: Session, order_digest: str, rules: dict[int, str | None]) -> Iterator[ReleaseFact]:
    query = select(ReleaseRow).where(ReleaseRow.order_digest == order_digest).order_by(ReleaseRow.ledger_seq)
    for row in session.scalars(query):
        # As it left first: its reply may have been purged since.
        body = session.scalar(select(LedgerRow.body).where(LedgerRow.seq == row.ledger_seq)) or b""
        entry = read_body("egress", body)
        yield ReleaseFact.model_validate(
            {
                "round": row.round,
                "stage": row.stage,
                "reply_digest": entry.get("digest"),
                "reply_bytes": entry.get("size"),
                "arrays_digest": row.arrays_digest,
                "arrays_bytes": row.arrays_size,
                "rules_digest": rules.get(row.ledger_seq),
                "examples": row.examples,
                "ledger_seq": row.ledger_seq,
                "recorded": row.recorded,
            }
        )


def _time(entry: dict[str, JsonValue]) -> datetime:
    return datetime.strptime(str(entry.get("time")), TIME_FORMAT).replace(tzinfo=UTC)
