"""The table of counts that is told outside: fixed cells per offered collection, rounded, slow, and dithered.

Nobody outside can ask for a count; they are told this table, whole, or nothing. Its cells are patients, studies, and images of
each modality. Invariants, for the protection of single patients:

1. A cell is looked at again after `every_days`, and changes only when more than `minimum_difference` patients net came or
   went since it was set. A patient with many images moves no cell of images: what counts is patients.
2. A cell with no more than `minimum_difference` patients behind it is told as 0, whatever it counts.
3. Where these lines lie is secret: 0 to 9 patients above the two numbers, drawn each time a cell is set; and what is told is
   rounded up or down to ten by a third draw. So whoever knows everything about everybody but one patient, and sees every
   version of the table, can tell from a change of a cell whether that patient is there with an advantage of at most 1/10 for
   each draw (total variation; a test computes it).
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.manifest import Modality
from station.catalogue.tables import PublishedCount, PublishedTable, SeriesCount
from station.cohorts.definition import ROUNDING_BASE
from station.settings.outside import CountsSettings
from station.storage import Database

PATIENTS, STUDIES = "patients", "studies"
CELLS = (PATIENTS, STUDIES, *Modality)
"""The cells of every collection's row, whether it holds such data or not."""

Draw = Callable[[], int]
"""Returns 0 to 9, each as likely."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell as it is kept.

    Attributes:
        value: what is told.
        patients: how many stood behind it when it was set; never told.
        slack: how many more than the minimum difference must come or go before it is set again; never told.
    """

    value: int
    patients: int
    slack: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a cell counts now, exactly: of how many patients, and how much."""

    patients: int
    count: int


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """What is told of one collection."""

    collection: str
    patients: int
    studies: int
    images: Mapping[Modality, int]


def draw() -> int:
    """Draw 0 to 9 from the system's randomness."""
    return secrets.randbelow(ROUNDING_BASE)


def renewed(cell: Cell | None, held: Held, minimum_difference: int, draw: Draw = draw) -> Cell:
    """Return what a cell becomes when it is looked at.

    >>> renewed(Cell(30, 31, 4), Held(45, 45), 10, lambda: 0).value
    30
    >>> renewed(Cell(30, 31, 4), Held(46, 46), 10, lambda: 0).value
    40
    """
    cell = cell or Cell(0, 0, draw())
    if abs(held.patients - cell.patients) <= minimum_difference + cell.slack:
        return cell
    shown = (held.count + draw()) // ROUNDING_BASE * ROUNDING_BASE
    enough = held.patients > minimum_difference + draw()
    return Cell(shown if enough else 0, held.patients, draw())


class PublishedCounts:
    """Keeps the table.

    Args:
        database: the compute database.
        settings: how often, and how much it takes.
        collections: those the hospital offers: each has its row, also an empty one.
    """

    def __init__(
        self, database: Database, settings: CountsSettings, collections: Sequence[str], draw: Draw = draw
    ) -> None:
        self._database = database
        self._settings = settings
        self._collections = tuple(sorted(collections))
        self._draw = draw

    def table(self, now: datetime) -> tuple[PublishedRow, ...]:
        """Return the table as it is told now, durably: looked at again where its time has come.

        Raises:
            StorageError: it cannot be kept; then it may not be told.
        """
        with self._database.write() as session:
            return tuple(self._row(session, name, now) for name in self._collections)

    def _row(self, session: Session, collection: str, now: datetime) -> PublishedRow:
        table = session.get(PublishedTable, collection)
        cells = {
            row.cell: Cell(row.value, row.patients, row.slack)
            for row in session.scalars(select(PublishedCount).where(PublishedCount.collection == collection))
        }
        if table is None or now - table.looked_at >= timedelta(days=self._settings.every_days):
            cells = self._renew(session, collection, cells)
            session.merge(PublishedTable(collection=collection, looked_at=now))
            session.flush()
            for name, cell in cells.items():
                session.merge(
                    PublishedCount(
                        collection=collection,
                        cell=name,
                        value=cell.value,
                        patients=cell.patients,
                        slack=cell.slack,
                    )
                )
        return PublishedRow(
            collection=collection,
            patients=cells[PATIENTS].value,
            studies=cells[STUDIES].value,
            images={modality: cells[modality].value for modality in Modality},
        )

    def _renew(self, session: Session, collection: str, cells: Mapping[str, Cell]) -> dict[str, Cell]:
        held = _held(session, collection)
        return {
            name: renewed(
                cells.get(name), held.get(name, Held(0, 0)), self._settings.minimum_difference, self._draw
            )
            for name in CELLS
        }


def _held(session: Session, collection: str) -> dict[str, Held]:
    mine = SeriesCount.collection == collection
    patients, studies = session.execute(
        select(
            func.count(func.distinct(SeriesCount.patient)), func.count(func.distinct(SeriesCount.study_uid))
        ).where(mine)
    ).one()
    images = session.execute(
        select(
            SeriesCount.modality,
            func.count(func.distinct(SeriesCount.patient)),
            func.sum(SeriesCount.images),
        )
        .where(mine)
        .group_by(SeriesCount.modality)
    )
    return {
        PATIENTS: Held(patients, patients),
        STUDIES: Held(patients, studies),
        **{modality: Held(count, total) for modality, count, total in images},
    }
