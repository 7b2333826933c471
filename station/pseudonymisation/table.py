"""PS3.15 Table E.1-1 as data, matched by tag number.

Data only: what an action means is in `rules`. Edition 2026c, read from the DocBook of the standard; its digest
stands in the file. Tags are numbers because pydicom's dictionary lacks 25 of the table's attributes.
"""

from enum import StrEnum
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Sequence, StrictModel, load_json
from station.pseudonymisation.resources import MAX_BYTES, resource


class Action(StrEnum):
    """The action codes of Table E.1-1a that the Basic Profile column uses."""

    D = "D"
    Z = "Z"
    X = "X"
    U = "U"
    Z_D = "Z/D"
    X_Z = "X/Z"
    X_D = "X/D"
    X_Z_D = "X/Z/D"
    X_Z_U = "X/Z/U*"


OptionAction = Literal["K", "C"]


class Options(StrictModel):
    """The option columns of one row; a column that is absent says nothing."""

    retain_safe_private: OptionAction | None = None
    retain_uids: OptionAction | None = None
    retain_device_identity: OptionAction | None = None
    retain_institution_identity: OptionAction | None = None
    retain_patient_characteristics: OptionAction | None = None
    retain_full_dates: OptionAction | None = None
    retain_modified_dates: OptionAction | None = None
    clean_descriptors: OptionAction | None = None
    clean_structured_content: OptionAction | None = None
    clean_graphics: OptionAction | None = None


class Row(StrictModel):
    """One row of the table.

    Attributes:
        tag: ``gggg,eeee``, with ``x`` for repeating groups; ``odd,xxxx`` for private attributes.
        basic: the Basic Profile's action.
    """

    tag: Annotated[str, Field(pattern=r"^(?:[0-9a-fx]{4}|odd),[0-9a-fx]{4}$")]
    name: str
    retired: bool
    in_standard_iod: bool
    basic: Annotated[Action, Field(strict=False)]
    options: Options = Options()


class Source(StrictModel):
    """Where the rows were read from."""

    title: str
    edition: str
    subtitle: str
    document: str
    sha256: str
    transcribed: str


class Table(StrictModel):
    """The whole table."""

    source: Source
    rows: Sequence[Row]


class KeptText(StrictModel):
    """Unlisted attributes that are kept, each with its reason; tags as eight hex digits."""

    why: str
    text: dict[str, str]
    public_coding_schemes: Sequence[str]
    binary: dict[str, str]


@cache
def load_table() -> Table:
    """Return Table E.1-1."""
    return load_json(Table, resource("table_e1_1.json"), what="Table E.1-1", max_bytes=MAX_BYTES)


@cache
def load_kept_text() -> KeptText:
    """Return the list of unlisted attributes that are kept."""
    return load_json(KeptText, resource("kept_text.json"), what="kept attributes", max_bytes=MAX_BYTES)


@cache
def rows_by_tag() -> dict[int, Row]:
    """Return the rows that name one attribute; repeating groups and private attributes go by group, see `rules`."""
    return {int(row.tag.replace(",", ""), 16): row for row in load_table().rows if "x" not in row.tag}
