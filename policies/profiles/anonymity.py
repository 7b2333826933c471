"""k-anonymity of what a cohort would show (Sweeney, 2002): how many patients look alike in what can single a person out.

Pure. The unit is the patient: one with several studies counts once, in the class of all that is shown of them together.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.profiles.model import ClinicalValue


@dataclass(frozen=True, slots=True)
class Anonymity:
    """How well patients hide among each other.

    Attributes:
        k: the size of the smallest class; 0 without patients.
        wanted: the size that a class should have.
        patients: how many in all.
        classes: how many classes.
        patients_below: how many are in a class smaller than wanted.
        smallest: sizes of classes below `wanted`, and how many classes have each.
    """

    k: int
    wanted: int
    patients: int
    classes: int
    patients_below: int
    smallest: Mapping[int, int]


def k_anonymity(
    rows: Iterable[tuple[str, Mapping[str, ClinicalValue]]], quasi_identifiers: Sequence[str], *, wanted: int
) -> Anonymity:
    """Count classes of patients who are shown alike.

    Args:
        rows: (patient, what is shown of one study): banded values, see `Profile.band`. A field that is absent counts as
            missing, and missing is a value like any other: it is seen too.
        quasi_identifiers: the fields that an outsider may know of a person, see `Profile.quasi_identifiers`.
        wanted: the size below which a class is counted as too small.

    Raises:
        ValueError: `wanted` is below 1.
    """
    if wanted < 1:
        raise ValueError("a class has at least one patient")
    shown: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for patient, row in rows:
        # The type is part of the value: 1 and true are not alike in a table.
        seen = tuple((type(row.get(name)).__name__, str(row.get(name))) for name in quasi_identifiers)
        shown.setdefault(patient, set()).add(seen)
    sizes = Counter(frozenset(seen) for seen in shown.values()).values()
    small = Counter(size for size in sizes if size < wanted)
    return Anonymity(
        k=min(sizes, default=0),
        wanted=wanted,
        patients=len(shown),
        classes=len(sizes),
        patients_below=sum(size * count for size, count in small.items()),
        smallest=dict(sorted(small.items())),
    )
