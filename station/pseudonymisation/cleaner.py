"""Cleans one instance: a new list of data elements from what may stay, item by item.

Elements that stay as they are are the very ones that were read; what is new is made as bytes. Nothing is deleted from a
copy, so what no rule lets pass is not there.
"""

from copy import copy
from dataclasses import dataclass

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr_element

from station.pseudonymisation import descriptors, text_rules
from station.pseudonymisation.dates import Shift, shift_date, shift_datetime, shift_time
from station.pseudonymisation.dummies import dummy_sequence, dummy_value
from station.pseudonymisation.encoding import Encoding
from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.keys import ProjectKeys
from station.pseudonymisation.numbers import numbers_fit
from station.pseudonymisation.parsing import Element
from station.pseudonymisation.plan import Place
from station.pseudonymisation.private import SafePrivate, creator_tag
from station.pseudonymisation.rules import Op
from station.pseudonymisation.values import (
    Elements,
    ascii_text,
    element_at,
    is_uid,
    items_of,
    raw_text,
    registered_vr,
)

MAX_DEPTH = 32
CODING_SCHEME_DESIGNATOR = 0x00080102
_FIRST_PRIVATE_ELEMENT = 0x1000


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose instance it is, and the words that may not stay in its text."""

    pseudonym: str
    shift: Shift
    identity: text_rules.IdentityWords


class Cleaner:
    """Applies a plan to one instance.

    Args:
        keys: the project's sub-keys.
        patient: whose instance it is.
        encoding: how its elements are encoded, and those made here will be.
        private: the private attributes that may stay.
    """

    def __init__(self, keys: ProjectKeys, patient: Patient, encoding: Encoding, private: SafePrivate) -> None:
        self._keys = keys
        self._patient = patient
        self._encoding = encoding
        self._private = private

    def clean(self, source: Elements, place: Place, depth: int = 0) -> dict[int, Element]:
        """Return what may stay of a data set, by tag.

        Raises:
            PseudonymisationError: items stand in items deeper than anyone means.
        """
        if depth > MAX_DEPTH:
            raise PseudonymisationError(PseudonymisationFault.NESTED_TOO_DEEP)
        made: dict[int, Element] = {}
        has_private = False
        for key, element in source.items():
            # A plain number: pydicom's own tags are slow to compare and to hash.
            tag = int(key)
            if tag & 0x10000:
                has_private = True
                continue
            step = place.step(tag, element.VR)
            op = step.op
            if op is Op.REMOVE:
                continue
            if op is Op.KEEP:
                if not numbers_fit(step.vr, step.vm, element):
                    op = step.fallback
                elif isinstance(element, RawDataElement) and element.VR != "UN":
                    made[tag] = element
                    continue
            new = self._apply(op, tag, element, step.vr, source, place, depth)
            if new is None:
                new = self._apply(step.fallback, tag, element, step.vr, source, place, depth)
            if new is not None:
                made[tag] = new
        if has_private and self._private:
            self._keep_private(source, place, depth, made)
        return made

    def _keep_private(self, source: Elements, place: Place, depth: int, made: dict[int, Element]) -> None:
        creators = self._private.creators(source)
        for key, element in source.items():
            tag = int(key)
            if not tag & 0x10000 or tag & 0xFFFF < _FIRST_PRIVATE_ELEMENT:
                continue
            reserved = creator_tag(tag)
            creator = creators.get(reserved)
            safe = self._private.rule(creator, tag, element) if creator is not None else None
            if creator is None or safe is None:
                continue
            rule, vr = safe
            new = self._apply(rule.op, tag, element, vr, source, place, depth)
            if new is not None:
                made[tag] = new
                made[reserved] = self._encoding.text(reserved, "LO", creator)

    def _apply(
        self, op: Op, tag: int, element: Element, vr: str, source: Elements, place: Place, depth: int
    ) -> Element | None:
        """Do one operation; None where it cannot be done on this value, or leaves nothing."""
        match op:
            case Op.REMOVE:
                return None
            case Op.KEEP:
                return self._as_it_is(tag, element, vr, source)
            case Op.EMPTY:
                return self._encoding.element(tag, vr, b"")
            case Op.DUMMY:
                return self._dummy(tag, element, vr, place)
            case Op.CLEAN_ITEMS:
                return self._items(tag, element, place, depth)
            case Op.PATIENT_PSEUDONYM:
                return self._encoding.text(tag, vr, self._patient.pseudonym)
            case Op.CLEAN_TEXT:
                raw = raw_text(element)
                words = self._patient.identity.all_words
                text = descriptors.cleaned(vr, raw, words) if raw else None
            case _:
                plain = ascii_text(element)
                if plain is None:
                    return None
                untouched = isinstance(element, RawDataElement) and element.VR != "UN"
                if op is Op.KEEP_FORMED and untouched and text_rules.is_formed(vr, plain):
                    return element
                text = self._text(op, tag, vr, plain, source)
        return None if text is None else self._encoding.text(tag, vr, text)

    def _text(self, op: Op, tag: int, vr: str, text: str, source: Elements) -> str | None:
        values = text_rules.values_of(text)
        if not values:
            return ""
        match op:
            case Op.REMAP_UID:
                return "\\".join(self._keys.remap_uid(value) if value else "" for value in values)
            case Op.KEEP_UID:
                return "\\".join(values) if all(is_uid(value) for value in values) else None
            case Op.SHIFT:
                return self._shifted(tag, vr, values, source)
            case Op.KEEP_FORMED:
                return text_rules.formed(vr, values)
            case Op.KEEP_AGE:
                return text_rules.kept_age(values)
            case Op.KEEP_CODE_MEANING:
                scheme = ascii_text(element_at(source, CODING_SCHEME_DESIGNATOR))
                if scheme is None or not text_rules.is_public_scheme(scheme):
                    return None
        return text_rules.kept(vr, values, self._patient.identity)

    def _shifted(self, tag: int, vr: str, values: list[str], source: Elements) -> str | None:
        shift = self._patient.shift
        partner = text_rules.time_beside(tag) if vr == "DA" and not tag & 0x10000 else None
        times = (ascii_text(element_at(source, partner)) or "").split("\\") if partner is not None else []
        new: list[str] = []
        for index, value in enumerate(values):
            match vr:
                case "DA":
                    moved = shift_date(value, shift, times[index] if index < len(times) else None)
                case "TM":
                    moved = shift_time(value, shift)
                case _:
                    moved = shift_datetime(value, shift)
            if moved is None and value:
                return None
            new.append(moved or "")
        return "\\".join(new)

    def _as_it_is(self, tag: int, element: Element, vr: str, source: Elements) -> Element | None:
        """Numbers and pixels, whose length was found to be that of their VR."""
        if not isinstance(element, RawDataElement):
            if " or " not in vr or not isinstance(source, Dataset):
                return element
            # Set in memory, as masked pixels are: which of its VRs it has depends on the attributes beside it.
            return correct_ambiguous_vr_element(copy(element), source, self._encoding.little)
        value = element.value or b""
        if element.VR == "UN" or tag & 0x10000:
            # PS3.5 6.2.2 note 2: the value of a UN is little endian, always.
            little = element.VR == "UN" or element.is_little_endian
            return RawDataElement(
                element.tag,
                vr.split(" or ", maxsplit=1)[0],
                len(value),
                value,
                0,
                element.is_implicit_VR,
                little,
            )
        return element

    def _dummy(self, tag: int, element: Element, vr: str, place: Place) -> Element:
        if vr == "SQ":
            return DataElement(tag, vr, dummy_sequence(place.types, place.path_of(tag)))
        if vr == "UI":
            return self._encoding.text(tag, vr, self._keys.remap_uid(ascii_text(element) or ""))
        registered = registered_vr(tag)
        vr = vr if vr in registered.split(" or ") else registered.split(" or ")[0]
        value = dummy_value(vr)
        return self._encoding.text(tag, vr, value) if isinstance(value, str) else DataElement(tag, vr, value)

    def _items(self, tag: int, element: Element, place: Place, depth: int) -> Element | None:
        items = items_of(element)
        if items is None:
            return None
        inside = place.inside(tag)
        encoded = []
        for item in items:
            made = self.clean(item, inside, depth + 1)
            encoded.append(self._encoding.encode(sorted(made.items())))
        return self._encoding.sequence(tag, encoded)
