"""The catalogue itself, and the text of a code that came from elsewhere."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.refusal_texts import asking, hospital, returning
from policies.refusals import CatalogueEntry, RefusalCode

CATALOGUE: Mapping[RefusalCode, CatalogueEntry] = MappingProxyType(
    {**asking.TEXTS, **hospital.TEXTS, **returning.TEXTS}
)


def text_of(code: str) -> CatalogueEntry:
    """Return the text of a code that came from elsewhere; an unknown one is named as such."""
    try:
        return CATALOGUE[RefusalCode(code)]
    except ValueError:
        return CatalogueEntry(
            "A reason that this version does not know.", "Compare the versions of the programs."
        )
