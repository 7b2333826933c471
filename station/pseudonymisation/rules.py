"""What happens to one attribute: the Basic Profile and one option of it, resolved for a place in an IOD.

Pure: takes a tag, a VR and the attribute's Type, gives a `Rule`. Implements PS3.15 E.1.1 (action codes), E.2 (Basic
Profile) and E.3.6 (Retain Longitudinal Temporal Information with Modified Dates). What Table E.1-1 leaves open is
decided here and listed in the package's README: unlisted dates and times shift, unlisted names and free text go,
unlisted UIDs are remapped, unlisted codes and numbers stay when they have the form their VR asks.
"""

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from station.pseudonymisation.iod import AttributeType
from station.pseudonymisation.table import Action, Row, load_kept_text, rows_by_tag

PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
CODE_MEANING = 0x00080104
SPECIFIC_CHARACTER_SET = 0x00080005

_DATE_VRS = frozenset({"DA", "TM", "DT"})
_FREE_TEXT_VRS = frozenset({"PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE"})
_FORMED_TEXT_VRS = frozenset({"CS", "AS", "DS", "IS"})
_BINARY_VRS = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_FIRST_DATA_GROUP = 0x0008


class Op(Enum):
    """What the engine does with an element."""

    REMOVE = auto()
    EMPTY = auto()
    DUMMY = auto()
    KEEP = auto()
    REMAP_UID = auto()
    SHIFT = auto()
    CLEAN_ITEMS = auto()
    KEEP_FORMED = auto()
    KEEP_TEXT = auto()
    KEEP_CODE_MEANING = auto()
    PATIENT_ID = auto()
    PATIENT_NAME = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """An operation, and what to do instead with a value it cannot be done on."""

    op: Op
    fallback: Op = Op.REMOVE


@lru_cache(maxsize=16384)
def rule_for(tag: int, vr: str, kind: AttributeType | None, *, nested: bool) -> Rule:
    """Decide on one attribute.

    Args:
        tag: the attribute's tag as a number.
        vr: its VR in the data set; for implicit VR the dictionary's.
        kind: its Type in the IOD at this place; None where the IOD does not have it there.
        nested: whether it stands in an item of a sequence.
    """
    if _belongs_to_removed_group(tag) or tag == SPECIFIC_CHARACTER_SET:
        return Rule(Op.REMOVE)
    row = rows_by_tag().get(tag)
    if not dictionary_has_tag(tag):
        # No VR to trust: 25 attributes of the table, which says X for all of them, and tags nobody knows.
        return Rule(Op.REMOVE)
    if tag in {PATIENT_NAME, PATIENT_ID} and not nested:
        return Rule(Op.PATIENT_NAME if tag == PATIENT_NAME else Op.PATIENT_ID)
    if not _vr_is_registered(tag, vr):
        return Rule(_at_least(_by_type(kind), row, vr, kind))
    return _listed(row, vr, kind) if row is not None else _unlisted(tag, vr, kind, nested=nested)


def _belongs_to_removed_group(tag: int) -> bool:
    """Private, command, file meta and directory groups, group lengths, curves and overlays, padding, signatures.

    Table E.1-1 removes curve data and overlay data and comments; the rest of those groups has no meaning without.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if group < _FIRST_DATA_GROUP or group % 2 == 1 or element == 0 or group in {0xFFFA, 0xFFFC}:
        return True
    return group & 0xFF00 in {0x5000, 0x6000}


def _vr_is_registered(tag: int, vr: str) -> bool:
    registered = dictionary_VR(tag)
    return vr == registered or vr in registered.split(" or ")


def _at_least(op: Op, row: Row | None, vr: str, kind: AttributeType | None) -> Op:
    return _basic(row.basic, vr, kind) if row is not None and row.basic is not Action.U else op


def _listed(row: Row, vr: str, kind: AttributeType | None) -> Rule:
    if row.basic is Action.U:
        return Rule(Op.REMAP_UID) if vr == "UI" else Rule(_by_type(kind))
    basic = _basic(row.basic, vr, kind)
    if vr in _DATE_VRS and row.options.retain_modified_dates == "C":
        return Rule(Op.SHIFT, fallback=basic)
    return Rule(basic)


def _basic(action: Action, vr: str, kind: AttributeType | None) -> Op:
    """Table E.1-1a. A Type 1C attribute that is present counts as required; of a sequence, as not."""
    type_ = kind.type if kind is not None else None
    if type_ == "1C":
        type_ = None if vr == "SQ" else "1"
    if type_ == "2C":
        type_ = "2"
    match action:
        case Action.X:
            # The IOD's integrity is the de-identifier's to keep (E.1.1 step 2), where it asks without condition.
            required = kind is not None and kind.mandatory_module and kind.type in {"1", "2"}
            return _by_type(kind) if required else Op.REMOVE
        case Action.D:
            # Note 13 of E.1: an attribute outside the IODs that define it is simply removed.
            return Op.DUMMY if type_ is not None else Op.REMOVE
        case Action.Z | Action.Z_D:
            return Op.DUMMY if type_ == "1" else Op.EMPTY
        case Action.X_Z_U:
            return Op.CLEAN_ITEMS if kind is not None and kind.type in {"1", "1C"} else _by_type(kind)
        case Action.X_Z | Action.X_D | Action.X_Z_D:
            return _by_type(kind, sequence=vr == "SQ")
        case Action.U:
            return Op.REMAP_UID


def _by_type(kind: AttributeType | None, *, sequence: bool = False) -> Op:
    """Remove what the IOD lets go: a dummy for Type 1, an empty value for Type 2, else nothing."""
    if kind is None:
        return Op.REMOVE
    if kind.type == "1" or (kind.type == "1C" and not sequence):
        return Op.DUMMY
    return Op.EMPTY if kind.type in {"2", "2C"} else Op.REMOVE


def _unlisted(tag: int, vr: str, kind: AttributeType | None, *, nested: bool) -> Rule:
    gone = _by_type(kind)
    kept = load_kept_text()
    if vr == "SQ":
        return Rule(Op.CLEAN_ITEMS)
    if vr == "UI":
        return Rule(Op.REMAP_UID)
    if vr in _DATE_VRS:
        return Rule(Op.SHIFT, fallback=gone)
    if vr in _FORMED_TEXT_VRS:
        return Rule(Op.KEEP_FORMED, fallback=gone)
    if vr in _FREE_TEXT_VRS:
        if tag == CODE_MEANING:
            return Rule(Op.KEEP_CODE_MEANING, fallback=Op.DUMMY)
        return Rule(Op.KEEP_TEXT, fallback=gone) if f"{tag:08x}" in kept.text else Rule(gone)
    if vr in _BINARY_VRS or vr.startswith("OB or") or vr.endswith("or OW"):
        return (
            Rule(Op.KEEP)
            if f"{tag:08x}" in kept.binary and not _pixels_in_item(tag, nested=nested)
            else Rule(gone)
        )
    return Rule(Op.KEEP)


def _pixels_in_item(tag: int, *, nested: bool) -> bool:
    # Pixels in an item are an icon or a stray copy: the profile's pixel options never look there.
    return nested and tag >> 16 == 0x7FE0
