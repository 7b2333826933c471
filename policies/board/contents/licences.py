"""What a licence's name says, roughly: permissive, copyleft, restricted, or not known. A pointer for a lawyer, no advice."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

MAX_LICENCE: Final = 160

_MACHINE_READABLE: Final = re.compile(r"format:\s*https?://\S*copyright-format/\S*", re.IGNORECASE)


class Family(StrEnum):
    """Families of licences, those that ask least first."""

    PERMISSIVE = "permissive"
    WEAK_COPYLEFT = "weak copyleft"
    COPYLEFT = "copyleft"
    UNKNOWN = "unknown"
    RESTRICTED = "non-commercial or proprietary"


_STRICTNESS: Final = {family: place for place, family in enumerate(Family)}

# Asked in this order, on lower-case text: "LGPL" must not be taken for "GPL", nor "CC-BY-NC" for "CC-BY".
_PATTERNS: Final = (
    (
        Family.RESTRICTED,
        (
            r"non-?\s?commercial|\bby-nc|\bnc\b|academic|research[ -](use|only)|proprietary|all rights reserved|"
            r"nvidia|\beula\b|commons[ -]clause|\bbusl|business source|\bsspl|server side public|elastic licen|no licen[cs]e"
        ),
    ),
    (
        Family.WEAK_COPYLEFT,
        (
            r"\blgpl|lesser|library general public|\bmpl\b|mozilla public|\bepl\b|eclipse public|\bcddl|\bcecill-c|"
            r"\beupl|gpl.*with.*(exception|classpath)|gcc.*exception"
        ),
    ),
    (Family.COPYLEFT, r"a?gpl|affero|general public|\bcc-by-sa|\bgfdl|\bosl-|\bcecill"),
    (
        Family.PERMISSIVE,
        (
            r"\bmit\b|\bx11\b|expat|bsd|apache|\bisc\b|\bpsf\b|python software|\bzlib|unlicense|public[ -]domain|\bcc0|"
            r"cc-by-[0-9]|\bcc-by\b|hpnd|historical permission|artistic|\bwtfpl|\b0bsd|\bncsa|boost|\bbsl-1|openssl|"
            r"\bcurl\b|permissive|\bcnri|zope|\bzpl|\bofl|afl-|\bblueoak|unicode|\bicu\b|\btcl\b|tcp-wrappers|sleepycat|"
            r"\bpython-2|\bfsf"
        ),
    ),
)
_COMPILED: Final = tuple((family, re.compile(pattern)) for family, pattern in _PATTERNS)


def family_of(licence: str) -> Family:
    """Return the family of a licence expression, a licence's name, or names that a comma parts (then all apply).

    >>> family_of("MIT OR GPL-2.0-only"), family_of("BSD-3-Clause AND LGPL-2.1+"), family_of("see LICENSE")
    (<Family.PERMISSIVE: 'permissive'>, <Family.WEAK_COPYLEFT: 'weak copyleft'>, <Family.UNKNOWN: 'unknown'>)
    """
    text = licence[:MAX_LICENCE].lower().replace("(", " ").replace(")", " ")
    together = [part for part in re.split(r"\s+and\s+|,|;", text) if part.strip()]
    return strictest(_lenient(part) for part in together)


def strictest(families: Iterable[Family]) -> Family:
    """Return the family that asks most, where all apply; unknown where there is none."""
    return max(families, key=_STRICTNESS.__getitem__, default=Family.UNKNOWN)


def _lenient(text: str) -> Family:
    choices = [_one(part) for part in re.split(r"\s+or\s+|/", text) if part.strip()]
    return min(choices, key=_STRICTNESS.__getitem__, default=Family.UNKNOWN)


def _one(text: str) -> Family:
    return next((family for family, pattern in _COMPILED if pattern.search(text)), Family.UNKNOWN)


def debian_licences(copyright_file: bytes) -> tuple[str, ...] | None:
    """Return the short names in a machine-readable ``debian/copyright`` (DEP 5); None where it is in prose."""
    text = copyright_file.decode("utf-8", "replace")
    if not _MACHINE_READABLE.match(text.lstrip()):
        return None
    names = re.findall(r"^license:[ \t]*(\S[^\n]*)$", text, re.IGNORECASE | re.MULTILINE)
    return tuple(dict.fromkeys(" ".join(name.split())[:MAX_LICENCE] for name in names))
