"""Merges as they are told: HL7 A40, CSV, and what of them is refused; chains of merges never lead back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import DataError
from station.intake.csv_reader import CsvError
from station.intake.merges.chains import MergeError, ToldMerge, add, resolve
from station.intake.merges.sources import MessageError, read_merges

MSH = "MSH|^~\\&|EPR|UMC|PHT|UMC|20260102030405||ADT^A40^ADT_A39|17|P|2.5"
PID = "PID|1||9252896^^^Amstelrijk^MR||Testpatient^Eva"
MRG = "MRG|3748755^^^Amstelrijk^MR"
OLD, NEW = ("Amstelrijk", "3748755"), ("Amstelrijk", "9252896")


def message(*segments: str, header: str = MSH) -> bytes:
    return "\r".join((header, "EVN|A40|20260102", *segments, "")).encode()


def pairs(data: bytes) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    return [(told.old, told.new) for told in read_merges(data, "Default")]


def test_an_a40_names_survivor_and_prior() -> None:
    assert pairs(message(PID, "PD1|", MRG)) == [(OLD, NEW)]


@pytest.mark.parametrize(
    "framed",
    [
        lambda data: b"\x0b" + data + b"\x1c\r",
        lambda data: data.replace(b"\r", b"\r\n"),
        lambda data: data.replace(b"\r", b"\n"),
        lambda data: b"FHS|^~\\&\rBHS|^~\\&\r" + data + b"BTS|1\rFTS|1\r",
    ],
)
def test_frames_and_line_ends_do_not_matter(framed: object) -> None:
    assert callable(framed)
    assert pairs(framed(message(PID, MRG))) == [(OLD, NEW)]


def test_many_messages_and_many_patients_in_one() -> None:
    second = ("PID|2||7^^^Amstelrijk", "MRG|5^^^Amstelrijk~6^^^Amstelrijk")
    told = pairs(message(PID, MRG, *second) + message("PID|||8", "MRG|9"))
    assert told == [
        (OLD, NEW),
        (("Amstelrijk", "5"), ("Amstelrijk", "7")),
        (("Amstelrijk", "6"), ("Amstelrijk", "7")),
        (("Default", "9"), ("Default", "8")),
    ]


def test_an_identifier_follows_its_own_authority() -> None:
    survivors = "PID|1||9252896^^^Amstelrijk^MR~777^^^Regio&2.16.528.1&ISO^PI"
    assert pairs(message(survivors, "MRG|111^^^Regio&2.16.528.1&ISO^PI~3748755^^^Amstelrijk^MR")) == [
        (("Regio", "111"), ("Regio", "777")),
        (OLD, NEW),
    ]
    # One survivor of another authority is still the only one.
    assert pairs(message(PID, "MRG|X1^^^Elders")) == [(("Elders", "X1"), NEW)]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (message(PID, MRG, header=MSH.replace("A40^ADT_A39", "A37")), "undoes a merge"),
        (message(PID, MRG, header=MSH.replace("A40^ADT_A39", "A08")), "is not ADT"),
        (message(PID), "names no prior patient"),
        (message(MRG), "no single surviving"),
        (message("PID|1||1^^^A~2^^^B", "MRG|3^^^C"), "no single surviving"),
        (message("PID|1||", MRG), "no patient identifier in PID-3"),
        (message(PID, "MRG|^^^Amstelrijk"), "no patient identifier in MRG-1"),
        (message(PID, f"MRG|{'9' * 65}"), "no patient identifier in MRG-1"),
        (message(PID, MRG, header=MSH + "||||||UNKNOWN-SET"), "is not an HL7 v2 message"),
        (message(PID.replace("Eva", "Ev\u00e4"), MRG), "is not an HL7 v2 message"),
        (b"MSH", "is not an HL7 v2 message"),
        (b"MSH|", "is not an HL7 v2 message"),
        (b"MSH|^~\\&|\x01\x00", "is not an HL7 v2 message"),
        (b"MSH\x01\x00\x00\x00", "is not an HL7 v2 message"),
        (message(PID, MRG, header=MSH.replace("^~", "^^")), "is not an HL7 v2 message"),
        (message(PID, MRG, header=MSH.replace("^~", "A~")), "is not an HL7 v2 message"),
        (message(PID, MRG, header=MSH.replace("~", "")), "is not an HL7 v2 message"),
        (b"FHS|x\r", "there is no message"),
    ],
)
def test_a_message_that_cannot_be_followed_is_refused_without_its_values(data: bytes, problem: str) -> None:
    with pytest.raises(MessageError, match=problem) as refused:
        read_merges(data, "")
    said = f"{refused.value} {refused.value.hint} {refused.value.__context__}"
    assert not [word for word in ("Testpatient", "3748755", "9252896", "Amstelrijk") if word in said]


@pytest.mark.parametrize(("name", "codec"), [("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1")])
def test_character_sets_that_a_message_names_are_read(name: str, codec: str) -> None:
    text = message(
        PID.replace("Eva", "Ev\u00e4"), MRG.replace("3748755", "37\u00e955"), header=f"{MSH}||||||{name}"
    )
    assert pairs(text.decode().encode(codec)) == [(("Amstelrijk", "37\u00e955"), NEW)]


def test_a_csv_of_merges() -> None:
    data = b"old_issuer,old_id,new_issuer,new_id\nAmstelrijk,3748755,Amstelrijk,9252896\n,1,,2\n"
    assert pairs(data) == [(OLD, NEW), (("Default", "1"), ("Default", "2"))]
    for wrong in (b"old_id,new_id\n1,2\n", data + b",,,3\n", data + b"A,%s,A,1\n" % (b"9" * 65)):
        with pytest.raises(CsvError) as refused:
            read_merges(wrong, "")
        assert "3748755" not in str(refused.value)


@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for start in (b"", b"MSH|^~\\&|", b"MSH"):
        try:
            read_merges(start + data, "")
        except DataError:
            continue


@given(data=st.binary(max_size=60), at=st.integers(0, 200))
def test_any_change_of_a_message_is_read_or_refused(data: bytes, at: int) -> None:
    whole = message(PID, MRG)
    try:
        read_merges(whole[:at] + data + whole[at + len(data) :], "")
    except DataError:
        return


@given(told=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_chains_never_lead_back_and_never_part(told: list[tuple[int, int]]) -> None:
    table: dict[tuple[str, str], tuple[str, str]] = {}
    together: list[set[tuple[str, str]]] = []
    for old, new in told:
        merge = ToldMerge(("", str(old)), ("", str(new)))
        try:
            after = add(table, [merge])
        except MergeError:
            continue
        table = after
        together = [group for group in together if not group & {merge.old, merge.new}] + [
            {merge.old, merge.new}.union(*(group for group in together if group & {merge.old, merge.new}))
        ]
        assert add(table, [merge]) == table
        for group in together:
            # Whoever was merged is one patient now, whom nobody is merged into anew.
            (end,) = {resolve(table, member) for member in group}
            assert end not in table
