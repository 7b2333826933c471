"""The Type (1, 1C, 2, 2C, 3) of an attribute in the IOD of an instance's SOP Class (PS3.3 Annex A).

The tables are highdicom's, read as the JSON files it ships. An attribute that stands in several modules has its
strictest type; whether one of them is mandatory is told beside it, because a module that is optional may be absent.
The macros of an IOD's functional groups stand in these tables too, under the shared and the per-frame sequence.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policies.errors import StateError

Path_ = tuple[str, ...]
"""Keywords of the sequences around an attribute, outermost first."""

_STRICTNESS = {"1": 0, "1C": 1, "2": 2, "2C": 3, "3": 4}


@dataclass(frozen=True, slots=True)
class AttributeType:
    """How strictly an IOD asks for an attribute."""

    type: str
    mandatory_module: bool


class AttributeTypes:
    """The attribute types of one IOD."""

    def __init__(self, types: dict[tuple[Path_, str], AttributeType]) -> None:
        self._types = types
        self._places = frozenset(path for path, _ in types)

    def has_place(self, path: Path_) -> bool:
        """Tell whether the IOD has a sequence at this place."""
        return path in self._places

    def lookup(self, path: Path_, keyword: str) -> AttributeType | None:
        """Return the attribute's type at this place, or None where the IOD does not have it."""
        return self._types.get((path, keyword))

    def children(self, path: Path_) -> list[tuple[str, AttributeType]]:
        """Return the attributes the IOD defines directly in the items of a sequence."""
        return sorted((word, kind) for (place, word), kind in self._types.items() if place == path)


@cache
def types_for(sop_class_uid: str) -> AttributeTypes | None:
    """Return the types for a standard storage SOP Class, or None where the tables do not know it.

    The tables are read again for each SOP Class (0.3 s): parsed they would hold 200 MB.
    """
    iod = _load("sop_class_iod_map.json").get(sop_class_uid)
    if iod is None:
        return None
    types: dict[tuple[Path_, str], AttributeType] = {}
    modules = _load("module_attribute_map.json")
    for module in _load("iod_module_map.json")[iod]:
        mandatory = module["usage"] == "M"
        for attribute in modules[module["key"]]:
            key = (tuple(attribute["path"]), attribute["keyword"])
            types[key] = _stricter(types.get(key), AttributeType(attribute["type"], mandatory))
    return AttributeTypes(types)


def _stricter(known: AttributeType | None, new: AttributeType) -> AttributeType:
    if known is None:
        return new
    if (
        known.mandatory_module != new.mandatory_module
        and (known if known.mandatory_module else new).type in "12"
    ):
        return known if known.mandatory_module else new
    return min(known, new, key=lambda kind: (_STRICTNESS[kind.type], not kind.mandatory_module))


def _load(name: str) -> dict[str, Any]:
    # Found without importing highdicom, which costs a second and is not needed for its tables.
    spec = find_spec("highdicom")
    if spec is None or not spec.submodule_search_locations:
        raise StateError("highdicom is not installed", hint="Install the `station` extra.")
    path = Path(spec.submodule_search_locations[0]) / "_standard" / name
    tables: dict[str, Any] = json.loads(path.read_bytes())
    return tables
