"""What the operator sees of the catalogue: exact counts inside, what is told outside, what would stop a train."""

from typing import Protocol

from policies.documents import StrictModel
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


class CatalogueUses(Protocol):
    """The use cases of the catalogue's operator."""

    def query(self, query: CatalogueQuery) -> list[CountsView]:
        """Count what meets every condition."""

    def told(self) -> list[ToldView]:
        """The table of counts as it is told outside."""

    def export_profile(self) -> bytes:
        """The station's profile, signed; in the egress ledger before it is returned."""

    def export_dcat(self) -> bytes:
        """The collections in HealthDCAT-AP; in the egress ledger before it is returned.

        Raises:
            SettingsError: the settings leave something out.
        """
