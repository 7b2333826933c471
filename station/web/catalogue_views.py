"""What the operator sees of the catalogue: exact counts inside, what is told outside, what would stop a train."""

from typing import Annotated, Protocol

from pydantic import Field

from policies.documents import MAX_DOCUMENT_BYTES, Name, StrictModel
from station.catalogue.query import CatalogueQuery


class CountsView(StrictModel):
    """Exact counts of one collection; for inside only."""

    collection: str
    patients: int
    studies: int
    series: int
    images: int


class ToldView(StrictModel):
    """What is told outside of one collection."""

    collection: str
    patients: int
    studies: int
    images: dict[str, int]


class ReadinessRequest(StrictModel):
    """What to look at.

    Attributes:
        collection: one; all that are offered where not given.
        manifest: a train.yaml, as text: what would stop this train. Without it, what would stop any.
        minimum_patients: fewer that are ready are too few.
    """

    collection: Name | None = None
    manifest: Annotated[str, Field(max_length=MAX_DOCUMENT_BYTES)] | None = None
    minimum_patients: Annotated[int, Field(ge=1, le=1_000_000)] = 10


class ObstacleView(StrictModel):
    """One reason: how many series, files and patients it stops, and what to do."""

    reason: str
    series: int
    files: int
    patients: int
    advice: str


class CollectionReadinessView(StrictModel):
    """How much of one collection a train would get."""

    collection: str
    series: int
    ready_series: int
    patients: int
    ready_patients: int
    obstacles: list[ObstacleView]


class SeriesReadinessView(StrictModel):
    """One series that something stops, by its pseudonymous UID: reasons, and how many files each concerns."""

    collection: str
    series: str
    reasons: dict[str, int]


class ReadinessView(StrictModel):
    """How far the look is, and what it found."""

    done: int
    total: int
    finished: bool
    failed: bool
    read: int
    collections: list[CollectionReadinessView]
    series: list[SeriesReadinessView]
    series_not_listed: int


class CatalogueUses(Protocol):
    """The use cases of the catalogue's operator."""

    def query(self, query: CatalogueQuery) -> list[CountsView]:
        """Count what meets every condition."""

    def told(self) -> list[ToldView]:
        """The table of counts as it is told outside."""

    def start_readiness(self, request: ReadinessRequest) -> ReadinessView:
        """Begin to look for what would stop a train.

        Raises:
            NotFoundError: the collection is not offered.
            DocumentError: the manifest is none.
            StateError: an earlier look is under way.
        """

    def readiness(self) -> ReadinessView:
        """How far the look is, and what it found."""

    def export_profile(self) -> bytes:
        """The station's profile, signed; in the egress ledger before it is returned."""

    def export_dcat(self) -> bytes:
        """The collections in HealthDCAT-AP; in the egress ledger before it is returned.

        Raises:
            SettingsError: the settings leave something out.
        """
