"""Which (issuer, id) a patient is known by, after merges of merges: pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from policies.errors import DataError

Identity = tuple[str, str]
"""(issuer, id)"""


@dataclass(frozen=True, slots=True)
class ToldMerge:
    """One merge as the hospital told it: `old` is known by `new` from now on."""

    old: Identity
    new: Identity


class MergeFault(StrEnum):
    """Why merges are refused."""

    WITH_ITSELF = "merge-with-itself"
    CYCLE = "merge-cycle"
    INTO_ANOTHER = "merged-into-another"


_TEXTS = {
    MergeFault.WITH_ITSELF: ("a patient is merged with itself", "Correct it at its source."),
    MergeFault.CYCLE: (
        "a merge leads back to the patient it began with",
        "Merges are not undone here: pseudonyms that were given out cannot be taken apart again. Ask who told them.",
    ),
    MergeFault.INTO_ANOTHER: (
        "a patient who was merged already is merged into another",
        "Merges are not undone here: pseudonyms that were given out cannot be taken apart again. Merge the survivors.",
    ),
}


class MergeError(DataError):
    """Merges are refused, all of them; nothing is changed.

    Attributes:
        fault: the reason's code.
        position: which of the merges told, from 1.
    """

    def __init__(self, fault: MergeFault, position: int) -> None:
        text, hint = _TEXTS[fault]
        super().__init__(f"merge {position}: {text}", hint=hint)
        self.fault = fault
        self.position = position


def resolve(merges: Mapping[Identity, Identity], identity: Identity) -> Identity:
    """Return whom the hospital knows a patient by, at the end of the chain.

    >>> resolve({("", "1"): ("", "2"), ("", "2"): ("", "3")}, ("", "1"))
    ('', '3')
    """
    seen = {identity}
    while (following := merges.get(identity)) is not None:
        if following in seen:
            # `add` lets none in; a table that was tampered with must not hang us.
            raise MergeError(MergeFault.CYCLE, 0)
        seen.add(following)
        identity = following
    return identity


def add(known: Mapping[Identity, Identity], told: Iterable[ToldMerge]) -> dict[Identity, Identity]:
    """Return the table with what was told, in order; the same again changes nothing.

    Raises:
        MergeError: one leads back to itself, or parts what was merged.
    """
    table = dict(known)
    for position, merge in enumerate(told, start=1):
        if merge.old == merge.new:
            raise MergeError(MergeFault.WITH_ITSELF, position)
        end = resolve(table, merge.new)
        if merge.old in table:
            if resolve(table, merge.old) != end:
                raise MergeError(MergeFault.INTO_ANOTHER, position)
            continue
        if end == merge.old:
            raise MergeError(MergeFault.CYCLE, position)
        table[merge.old] = merge.new
    return table
