"""What happens to one attribute: the Basic Profile and the options chosen, resolved for a place in an IOD.

Pure: takes a tag, a VR, the attribute's Type and the options, gives a `Rule`. Implements PS3.15 E.1.1 (action codes),
E.2 (Basic Profile), E.3.5 (Clean Descriptors), E.3.6 (Modified Dates), E.3.7 (Patient Characteristics) and E.3.8
(Device Identity). What Table E.1-1 leaves open is decided here and listed in the package's README: unlisted dates and
times shift or go, unlisted names and free text go, unlisted UIDs are remapped, unlisted codes and numbers stay when
they have the form their VR asks. Private attributes are not judged here, see `private`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from station.pseudonymisation.iod import AttributeType
from station.pseudonymisation.options import Option
from station.pseudonymisation.table import Action, Row, load_kept_text, rows_by_tag

PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
CODE_MEANING = 0x00080104
SPECIFIC_CHARACTER_SET = 0x00080005

_DATE_VRS = frozenset({"DA", "TM", "DT"})
_FREE_TEXT_VRS = frozenset({"PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE"})
_CLEANABLE_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "AE"})
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
    KEEP_AGE = auto()
    KEEP_UID = auto()
    CLEAN_TEXT = auto()
    PATIENT_PSEUDONYM = auto()


Chosen = frozenset[Option]


@dataclass(frozen=True, slots=True)
class Rule:
    """An operation, and what to do instead with a value it cannot be done on."""

    op: Op
    fallback: Op = Op.REMOVE


@lru_cache(maxsize=16384)
def rule_for(tag: int, vr: str, kind: AttributeType | None, chosen: Chosen, *, nested: bool) -> Rule:
    """Decide on one attribute.

    Args:
        tag: the attribute's tag as a number.
        vr: its VR in the data set; for implicit VR the dictionary's.
        kind: its Type in the IOD at this place; None where the IOD does not have it there.
        chosen: the options beside the Basic Profile.
        nested: whether it stands in an item of a sequence.
    """
    if _belongs_to_removed_group(tag) or tag == SPECIFIC_CHARACTER_SET:
        return Rule(Op.REMOVE)
    row = rows_by_tag().get(tag)
    if not dictionary_has_tag(tag):
        # No VR to trust: 25 attributes of the table, which says X for all of them, and tags nobody knows.
        return Rule(Op.REMOVE)
    if tag in {PATIENT_NAME, PATIENT_ID} and not nested:
        return Rule(Op.PATIENT_PSEUDONYM)
    if not _vr_is_registered(tag, vr):
        return Rule(_at_least(_by_type(kind), row, vr, kind))
    if row is not None:
        return _listed(row, vr, kind, chosen)
    return _unlisted(tag, vr, kind, chosen, nested=nested)


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


def _listed(row: Row, vr: str, kind: AttributeType | None, chosen: Chosen) -> Rule:
    if row.basic is Action.U:
        basic = Op.REMAP_UID if vr == "UI" else _by_type(kind)
    else:
        basic = _basic(row.basic, vr, kind)
    options = row.options
    if vr in _DATE_VRS:
        # Of a device too: the day it was last calibrated would tell how far the days beside it were moved.
        shifted = options.retain_modified_dates == "C" and Option.MODIFIED_DATES in chosen
        return Rule(Op.SHIFT, fallback=basic) if shifted else Rule(basic)
    retained = (
        options.retain_patient_characteristics if Option.PATIENT_CHARACTERISTICS in chosen else None
    ) or (options.retain_device_identity if Option.DEVICE_IDENTITY in chosen else None)
    if retained == "K":
        return Rule(_kept(vr, basic), fallback=basic)
    if retained == "C" or (options.clean_descriptors == "C" and Option.CLEAN_DESCRIPTORS in chosen):
        return Rule(_cleaned(vr, basic), fallback=basic)
    return Rule(basic)


def _kept(vr: str, basic: Op) -> Op:
    """K of Table E.1-1a: kept as it is, a sequence cleaned; text only where it names nobody."""
    if vr == "SQ":
        return Op.CLEAN_ITEMS
    if vr == "UI":
        return Op.KEEP_UID
    if vr == "AS":
        return Op.KEEP_AGE
    if vr in _FORMED_TEXT_VRS:
        return Op.KEEP_FORMED
    if vr in _CLEANABLE_VRS:
        return Op.KEEP_TEXT
    return basic if vr in _FREE_TEXT_VRS or vr in _BINARY_VRS else Op.KEEP


def _cleaned(vr: str, basic: Op) -> Op:
    """C of Table E.1-1a: text by its words, a sequence by its items; what cannot be cleaned is not kept."""
    if vr == "SQ":
        return Op.CLEAN_ITEMS
    return Op.CLEAN_TEXT if vr in _CLEANABLE_VRS else basic


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


def _unlisted(tag: int, vr: str, kind: AttributeType | None, chosen: Chosen, *, nested: bool) -> Rule:
    gone = _by_type(kind)
    kept = load_kept_text()
    if vr == "SQ":
        return Rule(Op.CLEAN_ITEMS)
    if vr == "UI":
        return Rule(Op.REMAP_UID)
    if vr in _DATE_VRS:
        return Rule(Op.SHIFT, fallback=gone) if Option.MODIFIED_DATES in chosen else Rule(gone)
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
    return Rule(Op.KEEP, fallback=gone)


def _pixels_in_item(tag: int, *, nested: bool) -> bool:
    # Pixels in an item are an icon or a stray copy: the profile's pixel options never look there.
    return nested and tag >> 16 == 0x7FE0
