"""Retain Safe Private (PS3.15 E.3.10): which private attributes are held safe, by creator, group, offset and VR.

The list is table E.3.10-1 as data (edition in the file), and what the hospital adds in its settings. A private
attribute is found by the creator that reserved its block in the same data set (PS3.5 7.8.1): an attribute without a
creator is nobody's and goes. Blocks stay where they are. Values are judged by the VR of the list like any other: text
and codes by their form, dates moved, UIDs remapped, the items of sequences one by one. What has a VR that cannot be
judged (bytes, names, none in the table) is not on our list, whatever the table says of it.
"""

from functools import cache
from typing import Annotated

from pydantic import Field

from policies.documents import Sequence, StrictModel, load_json
from station.pseudonymisation.numbers import numbers_fit
from station.pseudonymisation.options import DeidentificationOptions, Option
from station.pseudonymisation.parsing import Element
from station.pseudonymisation.resources import MAX_BYTES, resource
from station.pseudonymisation.rules import Op, Rule
from station.pseudonymisation.table import Source
from station.pseudonymisation.values import Elements, element_at, raw_text

_FIRST_BLOCK = 0x10
_OPS = {
    **dict.fromkeys(("CS", "AS", "DS", "IS"), Op.KEEP_FORMED),
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC"), Op.KEEP_TEXT),
    **dict.fromkeys(("DA", "TM", "DT"), Op.SHIFT),
    **dict.fromkeys(("FL", "FD", "SL", "SS", "SV", "UL", "US", "UV"), Op.KEEP),
    "UI": Op.REMAP_UID,
    "SQ": Op.CLEAN_ITEMS,
}


class SafePrivateRow(StrictModel):
    """One row of table E.3.10-1."""

    creator: str
    tag: Annotated[str, Field(pattern=r"^[0-9a-f]{4},xx[0-9a-f]{2}$")]
    vr: str
    vm: str
    name: str


class SafePrivateTable(StrictModel):
    """The whole table."""

    source: Source
    rows: Sequence[SafePrivateRow]


@cache
def load_safe_private() -> SafePrivateTable:
    """Return table E.3.10-1."""
    return load_json(
        SafePrivateTable, resource("safe_private.json"), what="Table E.3.10-1", max_bytes=MAX_BYTES
    )


class SafePrivate:
    """The private attributes that may stay under a collection's options.

    Args:
        options: what the collection chose; without `safe-private` there are none.
    """

    def __init__(self, options: DeidentificationOptions) -> None:
        self._chosen = Option.SAFE_PRIVATE in options.chosen
        self._shifts = Option.MODIFIED_DATES in options.chosen
        self._known: dict[tuple[str, int, int], tuple[str, str]] = {}
        if not self._chosen:
            return
        for row in load_safe_private().rows:
            group, offset = row.tag.split(",xx")
            self._known[(row.creator, int(group, 16), int(offset, 16))] = (row.vr, row.vm)
        for element in options.private_elements():
            self._known[(element.creator, element.group, element.offset)] = (element.vr, "1-n")

    def __bool__(self) -> bool:
        return self._chosen

    def creators(self, source: Elements) -> dict[int, str]:
        """Return who reserved which blocks of a data set, by group and block as they stand in a tag: ``gggg00bb``."""
        found: dict[int, str] = {}
        for tag in source.keys():  # noqa: SIM118 - a data set iterates over its elements and converts them
            number = int(tag)
            if number >> 16 & 1 and _FIRST_BLOCK <= number & 0xFFFF <= 0xFF:
                name = raw_text(element_at(source, number))
                if name:
                    found[number] = name.decode("latin-1")
        return found

    def rule(self, creator: str, tag: int, element: Element) -> tuple[Rule, str] | None:
        """Return what happens to a private attribute and the VR it is to have; None where it is not known to be safe.

        Args:
            creator: who reserved its block.
            tag: its tag.
            element: the attribute, whose VR must be the list's where the file names one, and whose numbers as many.
        """
        known = self._known.get((creator, tag >> 16, tag & 0xFF))
        if known is None:
            return None
        vr, vm = known
        op = _OPS.get(vr)
        if op is None or element.VR not in {None, "UN", vr} or (op is Op.SHIFT and not self._shifts):
            return None
        if op is Op.KEEP and not numbers_fit(vr, vm, element):
            return None
        return Rule(op), vr


def creator_tag(tag: int) -> int:
    """Return the tag that reserves the block of a private attribute."""
    return tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8
