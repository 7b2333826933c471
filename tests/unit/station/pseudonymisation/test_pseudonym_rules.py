import pytest

from station.pseudonymisation.iod import AttributeType, types_for
from station.pseudonymisation.options import Option
from station.pseudonymisation.rules import Op, Rule, rule_for

BASIC = frozenset({Option.MODIFIED_DATES})

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def kind(type_: str | None, *, mandatory: bool = True) -> AttributeType | None:
    return AttributeType(type_, mandatory) if type_ else None


@pytest.mark.parametrize(
    ("tag", "vr", "type_", "op"),
    [
        # X, Patient Comments; kept only as the IOD's integrity asks
        (0x00104000, "LT", "3", Op.REMOVE),
        (0x00104000, "LT", None, Op.REMOVE),
        # Z, Accession Number
        (0x00080050, "SH", "2", Op.EMPTY),
        (0x00080050, "SH", "1", Op.DUMMY),
        # D, Acquisition Field Of View Label
        (0x001811BB, "LO", "1", Op.DUMMY),
        (0x001811BB, "LO", "3", Op.DUMMY),
        (0x001811BB, "LO", None, Op.REMOVE),
        # X/Z, Acquisition Context Sequence
        (0x00400555, "SQ", "2", Op.EMPTY),
        (0x00400555, "SQ", "3", Op.REMOVE),
        # X/D, Acquisition Device Processing Description
        (0x00181400, "LO", "1", Op.DUMMY),
        (0x00181400, "LO", "3", Op.REMOVE),
        # X/Z/D, Institution Name
        (0x00080080, "LO", "1", Op.DUMMY),
        (0x00080080, "LO", "1C", Op.DUMMY),
        (0x00080080, "LO", "2", Op.EMPTY),
        (0x00080080, "LO", "3", Op.REMOVE),
        (0x00080080, "LO", None, Op.REMOVE),
        # X/Z/U*, Referenced Image Sequence
        (0x00081140, "SQ", "1", Op.CLEAN_ITEMS),
        (0x00081140, "SQ", "1C", Op.CLEAN_ITEMS),
        (0x00081140, "SQ", "2", Op.EMPTY),
        (0x00081140, "SQ", "3", Op.REMOVE),
        # U
        (0x0020000D, "UI", "1", Op.REMAP_UID),
        # dates: the option
        (0x00080020, "DA", "2", Op.SHIFT),
        (0x00080030, "TM", "2", Op.SHIFT),
        # no option for the date of birth
        (0x00100030, "DA", "2", Op.EMPTY),
        (0x00160077, "DT", "3", Op.REMOVE),
        # groups
        (0x00191001, "LO", None, Op.REMOVE),
        (0x50003000, "OW", None, Op.REMOVE),
        (0x60003000, "OW", "1", Op.REMOVE),
        (0x60000010, "US", "1", Op.REMOVE),
        (0x00041511, "UI", None, Op.REMOVE),
        (0x00080000, "UL", None, Op.REMOVE),
        (0xFFFCFFFC, "OB", None, Op.REMOVE),
        (0xFFFAFFFA, "SQ", None, Op.REMOVE),
        # not in pydicom's dictionary: listed (Pronoun Comment) and not
        (0x00100016, "UT", None, Op.REMOVE),
        (0x0018EEEE, "LO", None, Op.REMOVE),
    ],
)
def test_listed(tag: int, vr: str, type_: str | None, op: Op) -> None:
    assert rule_for(tag, vr, kind(type_), BASIC, nested=False).op is op


@pytest.mark.parametrize(
    ("tag", "vr", "type_", "rule"),
    [
        (0x00080070, "LO", "2", Rule(Op.KEEP_TEXT, Op.EMPTY)),  # Manufacturer
        (0x00080104, "LO", "1", Rule(Op.KEEP_CODE_MEANING, Op.DUMMY)),
        (0x00281055, "LO", "3", Rule(Op.REMOVE)),  # Window Center & Width Explanation
        (0x00283003, "LO", "1", Rule(Op.DUMMY)),  # LUT Explanation
        (0x00180060, "DS", "3", Rule(Op.KEEP_FORMED, Op.REMOVE)),  # KVP
        (0x00280010, "US", "1", Rule(Op.KEEP, Op.DUMMY)),  # Rows
        (0x00540220, "SQ", "2", Rule(Op.CLEAN_ITEMS)),  # View Code Sequence
        (0x0008010C, "UI", "3", Rule(Op.REMAP_UID)),  # Coding Scheme UID
        (0x7FE00010, "OW", "1", Rule(Op.KEEP)),
        (0x00282000, "OB", "1C", Rule(Op.DUMMY)),  # ICC Profile
        (0x00080005, "CS", "1C", Rule(Op.REMOVE)),  # all text that is written is ASCII
        (0x00180060, "LO", "2", Rule(Op.EMPTY)),  # a VR that is not the attribute's
        (0x00180060, "LO", "3", Rule(Op.REMOVE)),
    ],
)
def test_unlisted(tag: int, vr: str, type_: str | None, rule: Rule) -> None:
    assert rule_for(tag, vr, kind(type_), BASIC, nested=False) == rule


def test_pixels_in_an_item_go() -> None:
    assert rule_for(0x7FE00010, "OW", kind(None), BASIC, nested=True).op is Op.REMOVE


def test_the_patient_is_named_at_top_level_only() -> None:
    assert rule_for(0x00100020, "LO", kind("2"), BASIC, nested=False).op is Op.PATIENT_PSEUDONYM
    assert rule_for(0x00100020, "LO", kind("2"), BASIC, nested=True).op is Op.EMPTY
    assert rule_for(0x00100010, "PN", kind("2"), BASIC, nested=True).op is Op.EMPTY


def test_an_attribute_the_profile_removes_stays_empty_where_a_mandatory_module_asks_for_it() -> None:
    assert rule_for(0x00104000, "LT", kind("2"), BASIC, nested=False).op is Op.EMPTY
    assert rule_for(0x00104000, "LT", kind("2", mandatory=False), BASIC, nested=False).op is Op.REMOVE


def test_types_come_from_the_instances_own_iod() -> None:
    types = types_for(DX)
    assert types is not None
    assert types.lookup((), "StudyDate") == AttributeType("2", mandatory_module=True)
    assert types.lookup((), "AcquisitionContextSequence") == AttributeType("2", mandatory_module=True)
    meaning = types.lookup(("ViewCodeSequence",), "CodeMeaning")
    assert meaning is not None
    assert meaning.type == "1"
    assert types.lookup((), "TemperatureOfTheMoon") is None
    assert types_for("1.2.3.4") is None
