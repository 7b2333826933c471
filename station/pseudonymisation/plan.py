"""What happens to each attribute of an IOD under some options, worked out once and looked up after.

A plan is a tree of places: the data set itself, and the sequences that the IOD has in it. Everything in a sequence that
the IOD does not have is in one and the same place, where nothing has a Type; so a hostile file cannot make a plan
grow.
"""

from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM

from station.pseudonymisation.iod import AttributeTypes, Path_
from station.pseudonymisation.rules import Chosen, Op, rule_for
from station.pseudonymisation.values import registered_vr

_MAX_STEPS = 8192
_ELSEWHERE: Path_ = ("elsewhere",)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one attribute, with the VR it has and the multiplicity it should have."""

    op: Op
    fallback: Op
    vr: str
    vm: str


class Place:
    """One place in an IOD, with the steps of the attributes seen there."""

    def __init__(
        self, types: AttributeTypes, chosen: Chosen, path: Path_ = (), elsewhere: "Place | None" = None
    ) -> None:
        self.path = path
        self.types = types
        self._chosen = chosen
        # The place of everything that the IOD does not have: itself, for that place.
        self._elsewhere = elsewhere or (self if path else Place(types, chosen, _ELSEWHERE))
        self._steps: dict[tuple[int, str | None], Step] = {}
        self._inside: dict[int, Place] = {}

    def step(self, tag: int, vr: str | None) -> Step:
        """Return what happens to an attribute here.

        Args:
            tag: its tag.
            vr: its VR in the file; None or ``UN`` where that does not tell.
        """
        found = self._steps.get((tag, vr))
        return self._resolve(tag, vr) if found is None else found

    def inside(self, tag: int) -> "Place":
        """Return the place of the items of a sequence."""
        found = self._inside.get(tag)
        if found is None:
            path = (*self.path, _keyword(tag))
            known = self is not self._elsewhere and self.types.has_place(path)
            found = Place(self.types, self._chosen, path, self._elsewhere) if known else self._elsewhere
            if known:
                self._inside[tag] = found
        return found

    def path_of(self, tag: int) -> Path_:
        """Return the path of a sequence that stands here."""
        return (*self.path, _keyword(tag))

    def _resolve(self, tag: int, vr: str | None) -> Step:
        actual = vr if vr and vr != "UN" else registered_vr(tag)
        kind = self.types.lookup(self.path, _keyword(tag))
        rule = rule_for(tag, actual, kind, self._chosen, nested=bool(self.path))
        vm = str(dictionary_VM(tag)) if dictionary_has_tag(tag) else "1-n"
        step = Step(rule.op, rule.fallback, actual, vm)
        if len(self._steps) >= _MAX_STEPS:
            self._steps.clear()
        self._steps[(tag, vr)] = step
        return step


@lru_cache(maxsize=8192)
def _keyword(tag: int) -> str:
    return str(dictionary_keyword(tag)) if dictionary_has_tag(tag) else f"{tag:08x}"
