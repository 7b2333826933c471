"""Binary numbers: whether a value can be what its VR and multiplicity say (PS3.5 table 6.2-1, 6.4).

In a file without VRs any bytes can stand where numbers should: text of the right length would pass for them. That there
are as many as the attribute has, and no half ones, is all that can be asked of numbers.
"""

from functools import cache

from pydicom.dataelem import RawDataElement

from station.pseudonymisation.parsing import Element

_BYTES = {
    "FL": 4, "FD": 8, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "AT": 4,
    "US or SS": 2, "US or OW": 2, "US or SS or OW": 2,
}  # fmt: skip


def numbers_fit(vr: str, vm: str, element: Element) -> bool:
    """Tell whether a value has whole numbers, and as many as a multiplicity like ``1``, ``1-3`` or ``2-2n`` allows.

    An empty value fits; so does anything that is no number by its VR, or is an object already.
    """
    size = _BYTES.get(vr)
    if size is None or not isinstance(element, RawDataElement) or not element.value:
        return True
    count, rest = divmod(len(element.value), size)
    least, most = _multiplicity(vm)
    return rest == 0 and least <= count and (most is None or count <= most)


@cache
def _multiplicity(vm: str) -> tuple[int, int | None]:
    least, _, most = vm.partition("-")
    if not most:
        return (int(least), int(least)) if least.isdigit() else (0, None)
    return int(least), int(most) if most.isdigit() else None
