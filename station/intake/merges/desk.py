"""Merges as the operator and the hospital's message broker bring them."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from station.intake.books import Books
from station.intake.merges import register
from station.intake.merges.register import MergeReport
from station.intake.merges.sources import read_merges
from station.intake.workforce import Workforce


class MergeDesk:
    """Takes merges.

    Args:
        books: intake's books.
        workforce: whose workers learn of a merge.
        pseudonym: makes the pseudonym of an (issuer, id), merges aside.
        default_issuer: who assigned ids that come without an authority.
        also_due: puts in the outbox what a merge makes due: consent and clinical data under the surviving pseudonym.
    """

    def __init__(
        self,
        books: Books,
        workforce: Workforce,
        pseudonym: Callable[[str, str], str],
        default_issuer: str,
        also_due: Callable[[Session], None],
    ) -> None:
        self._books = books
        self._workforce = workforce
        self._pseudonym = pseudonym
        self._default_issuer = default_issuer
        self._also_due = also_due

    def import_merges(self, data: bytes) -> MergeReport:
        """Take a file of HL7 ADT^A40 messages, or a CSV; all of it or nothing, and again is harmless.

        Raises:
            CsvError, MessageError: it cannot be read; nothing is changed.
            MergeError: the merges lead back to themselves or part what was merged; nothing is changed.
        """
        told = read_merges(data, self._default_issuer)
        with self._books.decide() as session:
            report = register.store(session, self._books, told, self._pseudonym)
            self._also_due(session)
        if report.new:
            self._workforce.renew()
        return report
