"""What the register says in its own words, in Dutch and in English; the table is `words.yaml`."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final

import yaml


class Language(StrEnum):
    """The languages of the register."""

    NL = "nl"
    EN = "en"

    @property
    def other(self) -> "Language":
        """The other one."""
        return Language.EN if self is Language.NL else Language.NL


_MONTHS: Final = (
    "januari", "februari", "maart", "april", "mei", "juni", "juli", "augustus", "september", "oktober", "november",
    "december",
)  # fmt: skip
_ENGLISH_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

_FILE: Final = files("policies").joinpath("public_register", "words.yaml")


@lru_cache(maxsize=1)
def words() -> Mapping[str, tuple[str, str]]:
    """Return the table of `words.yaml`: (Dutch, English) by key."""
    table = yaml.safe_load(_FILE.read_text("utf-8"))
    return {key: (line["nl"], line["en"]) for key, line in table.items()}


def say(language: Language, key: str, /, **values: object) -> str:
    """Return a line of the register in a language, its places filled in.

    >>> say(Language.NL, "rounds")
    'Rondes per keer'
    """
    return words()[key][0 if language is Language.NL else 1].format(**values)


def day(language: Language, moment: date | datetime) -> str:
    """Return a day as people write it.

    >>> day(Language.NL, date(2026, 3, 1)), day(Language.EN, date(2026, 3, 1))
    ('1 maart 2026', '1 March 2026')
    """
    months = _MONTHS if language is Language.NL else _ENGLISH_MONTHS
    return f"{moment.day} {months[moment.month - 1]} {moment.year}"


def number(language: Language, value: float, digits: int = 0) -> str:
    """Return a number as people write it.

    >>> number(Language.NL, 12345.6, 1), number(Language.EN, 12345.6, 1)
    ('12.345,6', '12,345.6')
    """
    text = f"{value:,.{digits}f}"
    return text.translate(str.maketrans(",.", ".,")) if language is Language.NL else text
