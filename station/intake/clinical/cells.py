"""From a cell of an export to a value of the profile, or to what is wrong with it. Pure."""

import re
from datetime import date
from decimal import Decimal

from policies.profiles import ClinicalValue, ProfileField, ValueFault
from station.intake.clinical.mapping import DateForm, ExportMapping, FieldSource
from station.intake.clinical.report import Fault, RowFault

MAX_CELL_CHARACTERS = 200
MAX_ID_CHARACTERS = 64
_FLAGS = {"yes": True, "no": False}
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,10})?")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_FORMS: dict[DateForm, re.Pattern[str]] = {
    "yyyy-mm-dd": re.compile(r"(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})"),
    "yyyymmdd": re.compile(r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})"),
    "dd-mm-yyyy": re.compile(r"(?P<d>\d{2})-(?P<m>\d{2})-(?P<y>\d{4})"),
    "dd/mm/yyyy": re.compile(r"(?P<d>\d{2})/(?P<m>\d{2})/(?P<y>\d{4})"),
    "mm/dd/yyyy": re.compile(r"(?P<m>\d{2})/(?P<d>\d{2})/(?P<y>\d{4})"),
    "dd-mmm-yyyy": re.compile(r"(?P<d>\d{2})-(?P<m>[A-Za-z]{3})-(?P<y>\d{4})"),
    "dd-mm-yyyy hh:mm": re.compile(r"(?P<d>\d{2})-(?P<m>\d{2})-(?P<y>\d{4}) (?:[01]\d|2[0-3]):[0-5]\d"),
}


def text_fault(text: str) -> RowFault | None:
    """Tell what is wrong with a cell as text, whatever it means.

    A cell that a spreadsheet would compute is refused: somebody opens such files in one, before us or after.
    """
    if len(text) > MAX_CELL_CHARACTERS or not text.isprintable():
        return RowFault.NOT_PLAIN_TEXT
    if text[:1] in {"=", "@"}:
        return RowFault.FORMULA
    return None


def read_day(text: str, form: DateForm) -> str | None:
    """Return a date as YYYY-MM-DD, or None where it has not this form or is none.

    >>> read_day("05-03-2020", "dd-mm-yyyy"), read_day("05-Mar-2020", "dd-mmm-yyyy"), read_day("30-02-2020", "dd-mm-yyyy")
    ('2020-03-05', '2020-03-05', None)
    """
    match = _FORMS[form].fullmatch(text)
    if match is None or not text.isascii():
        return None
    month = _MONTHS.get(match["m"].lower()) or (int(match["m"]) if match["m"].isdigit() else 0)
    try:
        return date(int(match["y"]), month, int(match["d"])).isoformat()
    except ValueError:
        return None


def is_missing(text: str, source: FieldSource, mapping: ExportMapping) -> bool:
    """Tell whether a cell says that nothing is known."""
    return not text or text in mapping.missing or text in source.missing


def read_value(
    text: str, field: ProfileField, source: FieldSource, mapping: ExportMapping
) -> tuple[ClinicalValue, Fault | None]:
    """Return the value of a cell that is not missing, and what is wrong with it."""
    if (fault := text_fault(text)) is not None:
        return None, fault
    value: ClinicalValue
    if source.values is not None:
        if text not in source.values:
            return None, ValueFault.UNKNOWN_CODE
        value = source.values[text]
    elif field.kind == "flag":
        if text not in _FLAGS:
            return None, ValueFault.UNKNOWN_CODE
        value = _FLAGS[text]
    elif field.kind == "code":
        value = text
    elif field.kind == "date":
        day = read_day(text, source.date_form or mapping.dates)
        return (day, None) if day else (None, RowFault.NOT_A_DATE)
    else:
        number = _number(text, field, source, mapping)
        if number is None:
            return None, ValueFault.NOT_ITS_TYPE
        value = number
    fault_of_value = field.fault(value)
    return (value, None) if fault_of_value is None else (None, fault_of_value)


def _number(
    text: str, field: ProfileField, source: FieldSource, mapping: ExportMapping
) -> int | float | None:
    plain = text.replace(",", ".") if mapping.decimal_mark == "," and "." not in text else text
    if not _NUMBER.fullmatch(plain) or not plain.isascii():
        return None
    number = Decimal(plain) * (Decimal(str(source.times)) if source.times is not None else 1)
    if field.kind == "number":
        return float(number)
    return int(number) if number == number.to_integral_value() else None
