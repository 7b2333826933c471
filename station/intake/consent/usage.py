"""Who a usage list is about: pseudonyms to patients, for the note in their file and for the patient who asks.

The answer is identified and for the operator alone. Audited before it is given.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of, format_moment
from policies.errors import NotFoundError
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.merges.register import known_patients
from station.intake.schema import MergeRow, PatientRow
from station.usage_list import UsageList, load_card_key, read_usage_list

COLUMNS = (
    "issuer", "patient_id", "policy", "version", "title", "requester", "purpose", "order", "cohort",
    "first_use", "last_use",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class ResolvedUsage:
    """Who was in which study.

    Attributes:
        csv: with a header; identified.
        lines: how many, the header aside.
        unknown: pseudonyms of the list that no patient here has.
    """

    csv: str
    lines: int
    unknown: int


class UsageDesk:
    """Resolves usage lists.

    Args:
        books: intake's.
        card: the station's card, which names the key that signs its usage lists.
    """

    def __init__(self, books: Books, card: Path) -> None:
        self._books = books
        self._card = card

    def resolve(self, data: bytes, asking: tuple[str | None, str] | None = None) -> ResolvedUsage:
        """Return who was in which study.

        Args:
            data: the signed list.
            asking: (issuer or None, patient id) of the one patient who asks; everybody where None.

        Raises:
            TrustError: the list is not this station's.
            DocumentError: it is no usage list.
            NotFoundError: nobody of the asking patient's id has images here.
        """
        usage = read_usage_list(data, load_card_key(self._card))
        now = self._books.clock()
        with self._books.database.write() as session:
            known = _patients(session, asking)
            if asking is not None and not known:
                raise NotFoundError("nobody of that id has images here")
            lines, unknown = _lines(usage, known)
            fields: dict[str, str | int] = {"digest": digest_of(data), "lines": len(lines)}
            if asking is None:
                fields["unknown"] = unknown
            else:
                fields["pseudonyms"] = " ".join(sorted(known))
            record(session, IntakeEvent.USAGE_RESOLVED, fields, now=now)
        return ResolvedUsage(_csv(lines), len(lines), unknown if asking is None else 0)


def _patients(session: Session, asking: tuple[str | None, str] | None) -> dict[str, tuple[str, str]]:
    """Return (issuer, id) of each pseudonym, also of those under which a merged patient was known before."""
    ids = {row.pseudonym: (row.issuer, row.patient_id) for row in session.scalars(select(PatientRow))}
    if asking is not None:
        issuer, patient_id = asking
        meant = {
            one.pseudonym
            for one in known_patients(session)
            if one.patient_id == patient_id and (issuer is None or one.issuer == issuer)
        }
        ids = {pseudonym: identity for pseudonym, identity in ids.items() if pseudonym in meant}
    merged = session.scalars(select(MergeRow))
    before = {row.old_pseudonym: ids[row.new_pseudonym] for row in merged if row.new_pseudonym in ids}
    return before | ids


def _lines(usage: UsageList, known: dict[str, tuple[str, str]]) -> tuple[list[tuple[str, ...]], int]:
    lines, unknown = [], set()
    for use in usage.uses:
        study = (
            use.policy_id, str(use.policy_version), use.title, use.requester, use.purpose, use.order, use.cohort,
            format_moment(use.first_use), format_moment(use.last_use),
        )  # fmt: skip
        for pseudonym in use.patients:
            if pseudonym in known:
                lines.append((*known[pseudonym], *study))
            else:
                unknown.add(pseudonym)
    return sorted(lines), len(unknown)


def _csv(lines: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    # A spreadsheet takes such a beginning for a formula; titles and ids are others' words.
    writer.writerows(
        [f"'{field}" if field.startswith(_FORMULA) else field for field in line] for line in lines
    )
    return text.getvalue()
