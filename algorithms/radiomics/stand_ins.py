"""Stands in for libraries that MIRP names when it is imported and that this train never uses.

MIRP reads files with ITK and draws with matplotlib: 1.5 GB in an image whose scans are read by `algorithms.one_patient` and drawn by
nobody. A stand-in lets the import pass and fails loudly at the first use, so no result can come from it.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Final, NoReturn

UNUSED: Final = ("itk", "matplotlib", "matplotlib.pyplot", "matplotlib.colors")
_NAMED: Final = {"matplotlib.colors": ("LinearSegmentedColormap",)}
"""What is imported from them by name."""


class UnusedLibraryError(RuntimeError):
    """Something asked a library that is not in the image to do something."""


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnusedLibraryError(f"{self.__name__} is not in this image, and {name} of it was asked for")


def stand_in(*, always: bool = False) -> None:
    """Put a stand-in where a library is missing.

    Args:
        always: also where it is there.
    """
    for name in UNUSED:
        top = name.partition(".")[0]
        if top in sys.modules and not isinstance(sys.modules[top], _StandIn):
            continue
        if always or isinstance(sys.modules.get(top), _StandIn) or find_spec(top) is None:
            made = _StandIn(name)
            for wanted in _NAMED.get(name, ()):
                setattr(made, wanted, None)
            sys.modules[name] = made
