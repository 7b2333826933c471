"""Counting inside the hospital: a query by DICOM and clinical predicates, answered exactly, for the operator alone.

A query is a typed document; its SQL is built of expressions, never of text. Nothing here is reachable from outside: what
leaves is the table of `station.catalogue.published`, which takes no predicates (DESIGN section 8).
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import Session

from policies.documents import Name, Sequence, StrictModel
from policies.errors import NotFoundError
from policies.profiles import DEFAULT_PROFILE, FieldName, ProfileId, load_profile
from station.catalogue.tables import Clinical, Label, SeriesCount
from station.handover import Code, Term

MAX_CONDITIONS = 16
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Comparand = bool | int | float | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,32}$")]


def _known_profile(name: str) -> str:
    try:
        load_profile(name)
    except NotFoundError as error:
        raise ValueError("is not a minimal-dataset profile that this version knows") from error
    return name


class Range(StrictModel):
    """A closed range; an end that is not given is open. A file that does not say is in no range."""

    minimum: Annotated[float, Field(ge=0)] | None = None
    maximum: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("a range needs a minimum, a maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("the minimum is above the maximum")
        return self


class ClinicalCondition(StrictModel):
    """One field of the study's clinical row against one value; an empty field meets no condition."""

    field: FieldName
    operator: Operator = "="
    value: Comparand

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        unordered = isinstance(self.value, bool) or (
            isinstance(self.value, str) and not _DAY.fullmatch(self.value)
        )
        if self.operator not in {"=", "!="} and unordered:
            raise ValueError("codes and flags are compared with = and != only")
        return self


class CatalogueQuery(StrictModel):
    """What to count. Every condition given must hold; of the values listed for one attribute, one.

    Attributes:
        collection: one collection; all where not given.
        modality, body_part, view, manufacturer, kernel: as catalogued, exactly.
        year: of the (shifted) study date.
        has_mask: whether a mask lies on the series.
        recognizable_face: whether a face could be rebuilt; `unknown` where nobody looked.
        profile: of the clinical conditions.
        clinical: conditions on the study's clinical row; all must hold.
    """

    collection: Name | None = None
    modality: Sequence[Code] = ()
    body_part: Sequence[Code] = ()
    view: Sequence[Code] = ()
    manufacturer: Sequence[Term] = ()
    kernel: Sequence[Term] = ()
    slice_thickness_mm: Range | None = None
    year: Range | None = None
    rows: Range | None = None
    columns: Range | None = None
    has_mask: bool | None = None
    recognizable_face: Literal["yes", "no", "unknown"] | None = None
    profile: Annotated[ProfileId, AfterValidator(_known_profile)] = DEFAULT_PROFILE
    clinical: Sequence[ClinicalCondition] = Field(default=(), max_length=MAX_CONDITIONS)

    @model_validator(mode="after")
    def _fields_exist(self) -> Self:
        known = {field.name for field in load_profile(self.profile).fields}
        unknown = sorted({condition.field for condition in self.clinical} - known)
        if unknown:
            raise ValueError(f"profile {self.profile} has no field {', '.join(unknown)}")
        return self


@dataclass(frozen=True, slots=True)
class ExactCounts:
    """What one collection holds of what was asked; exact, so for inside only."""

    collection: str
    patients: int
    studies: int
    series: int
    images: int


def count(session: Session, query: CatalogueQuery) -> tuple[ExactCounts, ...]:
    """Answer a query, per collection, sorted by name; a collection that holds nothing of it is left out.

    An image that stands in two collections counts in each.
    """
    # Grouped from the inside out: rows come sorted by study, and what is asked of a study is looked up once for each.
    study = (SeriesCount.collection, SeriesCount.patient, SeriesCount.study_uid)
    studies = (
        select(
            *study,
            func.count(func.distinct(SeriesCount.series_uid)).label("series"),
            func.sum(SeriesCount.images).label("images"),
        )
        .where(*_conditions(query))
        .group_by(*study)
        .subquery()
    )
    c = studies.c
    patients = (
        select(
            c.collection,
            func.count().label("studies"),
            func.sum(c.series).label("series"),
            func.sum(c.images).label("images"),
        )
        .where(*_clinical_rows(query, c.collection, c.patient, c.study_uid))
        .group_by(c.collection, c.patient)
        .subquery()
    )
    c = patients.c
    total = (
        select(c.collection, func.count(), func.sum(c.studies), func.sum(c.series), func.sum(c.images))
        .group_by(c.collection)
        .order_by(c.collection)
    )
    return tuple(ExactCounts(*row) for row in session.execute(total))


def _conditions(query: CatalogueQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.collection is not None:
        found.append(SeriesCount.collection == query.collection)
    listed = (
        (SeriesCount.modality, query.modality),
        (SeriesCount.body_part, query.body_part),
        (SeriesCount.view_position, query.view),
        (SeriesCount.manufacturer, query.manufacturer),
        (SeriesCount.kernel, query.kernel),
    )
    found += [column.in_(values) for column, values in listed if values]
    ranges = (
        (SeriesCount.slice_thickness_mm, query.slice_thickness_mm),
        (SeriesCount.study_year, query.year),
        (SeriesCount.rows, query.rows),
        (SeriesCount.columns, query.columns),
    )
    for column, wanted in ranges:
        if wanted is not None and wanted.minimum is not None:
            found.append(column >= wanted.minimum)
        if wanted is not None and wanted.maximum is not None:
            found.append(column <= wanted.maximum)
    match query.recognizable_face:
        case "yes" | "no":
            found.append(SeriesCount.recognizable_face.is_(query.recognizable_face == "yes"))
        case "unknown":
            found.append(SeriesCount.recognizable_face.is_(None))
        case None:
            pass
    if query.has_mask is not None:
        masked = exists().where(
            Label.collection == SeriesCount.collection, Label.series_uid == SeriesCount.series_uid
        )
        found.append(masked if query.has_mask else ~masked)
    return found


def _clinical_rows(
    query: CatalogueQuery,
    collection: ColumnElement[str],
    patient: ColumnElement[str],
    study_uid: ColumnElement[str],
) -> list[ColumnElement[bool]]:
    if not query.clinical:
        return []
    return [
        exists().where(
            Clinical.collection == collection,
            Clinical.profile == query.profile,
            Clinical.patient == patient,
            Clinical.study_uid == study_uid,
            *(_clinical(condition) for condition in query.clinical),
        )
    ]


def _clinical(condition: ClinicalCondition) -> ColumnElement[bool]:
    # FieldName holds nothing that a JSON path could take for syntax.
    path = f"$.{condition.field}"
    value = func.json_extract(Clinical.fields, path)
    # Of another type is not "another value": SQLite would sort every text behind every number.
    types = ("text",) if isinstance(condition.value, str) else ("integer", "real", "true", "false")
    return and_(func.json_type(Clinical.fields, path).in_(types), _compared(value, condition))


def _compared(value: ColumnElement[object], condition: ClinicalCondition) -> ColumnElement[bool]:
    match condition.operator:
        case "=":
            return value == condition.value
        case "!=":
            return value != condition.value
        case "<":
            return value < condition.value
        case "<=":
            return value <= condition.value
        case ">":
            return value > condition.value
        case ">=":
            return value >= condition.value
