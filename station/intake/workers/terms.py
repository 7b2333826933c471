"""Values of a pseudonymised data set in the form that the handover lets pass; what has another form is left out."""

import math
import re
from collections.abc import Iterable

_TERM = re.compile(r"[A-Za-z0-9 ._+/()-]{0,64}")
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_MAX_SIZE = 65_535


def term(value: object) -> str:
    """Return a word or name, or nothing.

    >>> term(" Philips Medical Systems "), term("Ü"), term(None)
    ('Philips Medical Systems', '', '')
    """
    text = str(value or "").strip()
    return text if _TERM.fullmatch(text) else ""


def codes(value: object, most: int) -> tuple[str, ...]:
    r"""Return the first codes of a value up to one that is none.

    >>> codes(["ORIGINAL", "PRIMARY", "name of a patient", "AXIAL"], 4)
    ('ORIGINAL', 'PRIMARY')
    """
    if value is None:
        return ()
    values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    found: list[str] = []
    for each in values[:most]:
        text = str(each or "").strip()
        if not _CODE.fullmatch(text):
            break
        found.append(text)
    return tuple(found)


def number(value: object, most: float) -> float | None:
    """Return a finite number between 0 and `most`, or None.

    >>> number("1.25", 1000), number("nan", 1000), number(-1, 1000), number("x", 1000)
    (1.25, None, None, None)
    """
    try:
        read = float(str(value))
    except ValueError:
        return None
    return read if math.isfinite(read) and 0 <= read <= most else None


def size(value: object) -> int | None:
    """Return how many rows or columns, or None."""
    return value if isinstance(value, int) and 1 <= value <= _MAX_SIZE else None
