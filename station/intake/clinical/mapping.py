"""The mapping file: how one hospital's eCRF export is read onto a minimal-dataset profile.

A document (YAML), written once per export and kept with it. It names columns and translates answers; it computes nothing. What
it does not name is not read. Two worked examples ship in `mappings/`, one for Castor and one for OpenClinica; `plain` is the
format that needs no mapping.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import Name, Sequence, StrictModel, Text, load_yaml
from policies.errors import DocumentError, NotFoundError
from policies.profiles import FieldName, Profile, ProfileField, ProfileId, load_profile

Column = Annotated[str, Field(min_length=1, max_length=200)]
"""A column's name as the header has it; ``{n}`` in it stands for the number of a repeat."""

Cell = Annotated[str, Field(max_length=200)]
DateForm = Literal[
    "yyyy-mm-dd", "yyyymmdd", "dd-mm-yyyy", "dd/mm/yyyy", "mm/dd/yyyy", "dd-mmm-yyyy", "dd-mm-yyyy hh:mm"
]
REPEAT = "{n}"
MAX_REPEATS = 200


class TableForm(StrictModel):
    """How the file is written.

    Attributes:
        header_begins: the name of the header's first column, where the file has lines before it (OpenClinica's has a
            description of the data set); without it the header is the first line.
    """

    delimiter: Literal[",", ";", "tab", "|"] = ","
    encoding: Literal["utf-8", "utf-16", "windows-1252"] = "utf-8"
    header_begins: Column | None = None
    other_columns: Literal["refused", "ignored"] = "refused"

    @property
    def separator(self) -> str:
        """The delimiter as a character."""
        return "\t" if self.delimiter == "tab" else self.delimiter


class PatientColumns(StrictModel):
    """Who the patient is: the hospital's own number, as the images have it, and who issued it.

    Attributes:
        issuer: the same for all rows; `issuer_column` where rows differ. Without either a number counts where only
            one issuer gave it out.
    """

    id_column: Column
    issuer: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    issuer_column: Column | None = None

    @model_validator(mode="after")
    def _one_issuer(self) -> Self:
        if self.issuer is not None and self.issuer_column is not None:
            raise ValueError("name the issuer or its column, not both")
        return self


class ByAccession(StrictModel):
    """A row belongs to the study with its accession number."""

    by: Literal["accession"]
    column: Column


class ByDate(StrictModel):
    """A row belongs to studies of its patient around its date.

    Attributes:
        days_before, days_after: how much earlier or later than the row's date a study may be.
        choose: the nearest study (of two equally near, the later), or every one.
    """

    by: Literal["date"]
    column: Column
    days_before: Annotated[int, Field(ge=0, le=3650)] = 0
    days_after: Annotated[int, Field(ge=0, le=3650)] = 0
    choose: Literal["nearest", "every"] = "nearest"


class ByPatient(StrictModel):
    """A row belongs to every study of its patient."""

    by: Literal["patient"]


StudyLink = Annotated[ByAccession | ByDate | ByPatient, Field(discriminator="by")]


class FieldSource(StrictModel):
    """Where a field comes from.

    Attributes:
        column: a column with the value itself.
        date_column: of a field of kind age or days, a column with the date it is computed from (of birth, of the event).
        values: what each answer means; an answer that is not here is an unknown code.
        missing: answers that mean nothing is known, beside the mapping's own.
        times: what a number is multiplied by, to come to the profile's unit.
        date_form: where it differs from the mapping's own.
    """

    column: Column | None = None
    date_column: Column | None = None
    values: dict[Cell, bool | int | float | str] | None = None
    missing: Sequence[Cell] = ()
    times: Annotated[float, Field(gt=0)] | None = None
    date_form: DateForm | None = None

    @model_validator(mode="after")
    def _one_column(self) -> Self:
        if (self.column is None) == (self.date_column is None):
            raise ValueError("name column or date_column, one of them")
        return self

    @property
    def named(self) -> str:
        """The column, whichever it is."""
        return self.column or self.date_column or ""


class OnlyRows(StrictModel):
    """Rows that count: those with one of these answers in a column. The others are skipped and counted."""

    column: Column
    values: Annotated[Sequence[Cell], Field(min_length=1)]


class Repeats(StrictModel):
    """Repeats within a line: columns with ``{n}`` are read once for each number, as a row of their own.

    A repeat that the header does not have, or that has neither accession nor date, is not a row.
    """

    first: Annotated[int, Field(ge=0)] = 1
    last: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not 0 <= self.last - self.first < MAX_REPEATS:
            raise ValueError(f"repeats count up, at most {MAX_REPEATS} of them")
        return self


class ExportMapping(StrictModel):
    """How an export is read.

    Attributes:
        source: which program wrote it; for people and for the history.
        missing: answers that mean nothing is known, in every field; an empty cell always is.
        partial: the export adds to rows of others, so a required field need not be among its columns.
    """

    schema_version: Literal[1] = 1
    name: Name
    title: Text | None = None
    source: Literal["castor", "openclinica", "plain", "other"]
    profile: ProfileId
    table: TableForm = TableForm()
    patient: PatientColumns
    study: StudyLink
    only_rows: OnlyRows | None = None
    repeats: Repeats | None = None
    dates: DateForm = "yyyy-mm-dd"
    decimal_mark: Literal[".", ","] = "."
    missing: Sequence[Cell] = ()
    partial: bool = False
    fields: Annotated[dict[FieldName, FieldSource], Field(min_length=1)]

    @model_validator(mode="after")
    def _repeats_are_used(self) -> Self:
        uses = any(REPEAT in column for column in self.columns())
        if uses != (self.repeats is not None):
            raise ValueError("`repeats` belongs to a mapping with {n} in its columns, and to no other")
        if uses and (isinstance(self.study, ByPatient) or REPEAT not in self.study.column):
            raise ValueError("repeats are told apart by the column that links to the study: put {n} in it")
        return self

    def columns(self) -> Iterator[str]:
        """Yield every column that the mapping names, with ``{n}`` as it stands."""
        yield self.patient.id_column
        if self.patient.issuer_column:
            yield self.patient.issuer_column
        if not isinstance(self.study, ByPatient):
            yield self.study.column
        if self.only_rows:
            yield self.only_rows.column
        for source in self.fields.values():
            yield source.named

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the repeats; one without any."""
        return tuple(range(self.repeats.first, self.repeats.last + 1)) if self.repeats else (0,)


def numbered(column: str, number: int) -> str:
    """Return a column's name in one repeat."""
    return column.replace(REPEAT, str(number))


def read_mapping(data: bytes, *, what: str = "mapping") -> ExportMapping:
    """Read a mapping and hold it against its profile.

    Raises:
        DocumentError: naming the key and what is wrong.
        NotFoundError: there is no such profile.
    """
    mapping = load_yaml(ExportMapping, data, what=what)
    check(mapping, load_profile(mapping.profile), what)
    return mapping


def check(mapping: ExportMapping, profile: Profile, what: str = "mapping") -> None:
    """Hold a mapping against its profile.

    Raises:
        DocumentError: naming the field and what is wrong.
    """
    problems = []
    for name, source in mapping.fields.items():
        try:
            field = profile.field(name)
        except KeyError:
            problems.append(f"fields.{name}: is not a field of {profile.id}")
            continue
        problems += [f"fields.{name}: {problem}" for problem in _problems(field, source)]
    if not mapping.partial:
        absent = [
            field.name for field in profile.fields if field.required and field.name not in mapping.fields
        ]
        problems += [f"fields.{name}: is required (or say `partial: true`)" for name in absent]
    if problems:
        raise DocumentError(
            f"{what}: " + "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else ""),
            hint="`pht-board profile show` lists the fields and their values.",
        )


def _problems(field: ProfileField, source: FieldSource) -> Iterator[str]:
    if source.date_column is not None and field.kind not in {"age", "days"}:
        yield "only age and days are computed from a date"
    if source.values is not None and (source.date_column is not None or field.kind == "date"):
        yield "a date has no values"
    if source.times is not None and (source.values is not None or field.kind != "number"):
        yield "only numbers are multiplied"
    for answer, value in (source.values or {}).items():
        if field.fault(value) is not None:
            yield f"values.{answer}: does not fit the field"


def plain_mapping(profile: Profile) -> ExportMapping:
    """Return the built-in mapping: comma-separated, UTF-8, each field in the column that the profile names."""
    fields = {
        field.name: FieldSource(date_column=field.column or field.name)
        if field.kind == "age"
        else FieldSource(column=field.column or field.name)
        for field in profile.fields
    }
    return ExportMapping(
        name="plain",
        source="plain",
        profile=profile.id,
        patient=PatientColumns(id_column="patient_id"),
        study=ByAccession(by="accession", column="accession"),
        fields=fields,
    )


def shipped_mappings() -> tuple[str, ...]:
    """Return the names of the worked examples."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir()))


@cache
def shipped_mapping(name: str) -> bytes:
    """Return a worked example as it stands.

    Raises:
        NotFoundError: there is none of this name.
    """
    path = _shipped() / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9-]{1,64}", name) or not path.is_file():
        raise NotFoundError("there is no such mapping", hint=f"Those here: {', '.join(shipped_mappings())}.")
    return path.read_bytes()


def _shipped() -> Path:
    return Path(str(files("station.intake.clinical"))) / "mappings"
