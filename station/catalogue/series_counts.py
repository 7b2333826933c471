"""Keeps `SeriesCount` what the instances say: the series that an entry touched are counted again, in its transaction."""

from collections.abc import Iterable

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from station.catalogue.tables import Instance, SeriesCount

# SQLite takes 32 766 values in one statement.
_AT_ONCE = 10_000

_ALIKE = (
    "collection", "patient", "study_uid", "series_uid", "modality", "body_part", "view_position", "manufacturer",
    "kernel", "slice_thickness_mm", "study_year", "rows", "columns", "recognizable_face",
)  # fmt: skip


def recount(session: Session, touched: Iterable[tuple[str, str]]) -> None:
    """Count series again.

    Args:
        session: the writing transaction that changed them.
        touched: (collection, series) of every instance that came, went, or moved to another series.
    """
    session.flush()
    series: dict[str, set[str]] = {}
    for collection, uid in touched:
        series.setdefault(collection, set()).add(uid)
    columns = [getattr(Instance, name) for name in _ALIKE]
    for collection, found in series.items():
        uids = sorted(found)
        for start in range(0, len(uids), _AT_ONCE):
            some = uids[start : start + _AT_ONCE]
            session.execute(
                delete(SeriesCount).where(
                    SeriesCount.collection == collection, SeriesCount.series_uid.in_(some)
                )
            )
            counted = (
                select(*columns, func.count())
                .where(Instance.collection == collection, Instance.series_uid.in_(some))
                .group_by(*columns)
            )
            session.execute(insert(SeriesCount).from_select([*_ALIKE, "images"], counted))
