"""The catalogue: what images compute has, what is known of their studies, and who consented; all by pseudonym."""

from station.catalogue.catalogue import Catalogue, CollectionCounts, SyncReport
from station.catalogue.consent import ConsentState, Decision, consenting
from station.catalogue.standing import Standing

__all__ = [
    "Catalogue",
    "CollectionCounts",
    "ConsentState",
    "Decision",
    "Standing",
    "SyncReport",
    "consenting",
]
