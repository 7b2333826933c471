"""Merges as the hospital tells them: HL7 v2 ADT^A40 messages, or a CSV. No value of a message is in an error.

A40 (HL7 v2.5.1 section 3.3.40) says of each patient: PID-3, the surviving identifiers, and MRG-1, the prior ones. An
identifier (CX) is an id and, in its fourth component, who assigned it; that authority's namespace is the issuer of patient
id as DICOM has it (IHE Radiology TF-2, appendix on the mapping of patient ids).
"""

import re
import string

import hl7

from policies.errors import DataError
from station.intake.csv_reader import CsvRow, read_csv
from station.intake.merges.chains import Identity, ToldMerge

MAX_BYTES = 64 << 20
MAX_MESSAGES = 100_000
MAX_IDENTITY_CHARACTERS = 64
COLUMNS = ("old_issuer", "old_id", "new_issuer", "new_id")
_MERGE = {"A40"}
_UNMERGE = {"A37", "A45", "A52", "A53"}
_BLOCK = re.compile(r"[\x0b\x1c]")
_CHARACTER_SETS = {
    "": "ascii",
    "ASCII": "ascii",
    "8859/1": "latin-1",
    "8859/15": "iso8859-15",
    "UNICODE UTF-8": "utf-8",
}
# What the parser raises on text that is no message.
_FAULTS = (hl7.HL7Exception, LookupError, ValueError, TypeError, AttributeError)


class MessageError(DataError):
    """A file or message tells no merge that can be followed; nothing is changed."""

    def __init__(self, number: int, problem: str, hint: str = "Correct it at its source.") -> None:
        super().__init__(f"HL7 message {number}: {problem}", hint=hint)


def read_merges(data: bytes, default_issuer: str) -> list[ToldMerge]:
    """Read a file of merges: HL7 where it begins as a message does, else CSV.

    Args:
        data: the file.
        default_issuer: who assigned ids that come without an authority.

    Raises:
        CsvError, MessageError: it cannot be followed.
        DataError: it is too large.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"the file is over {MAX_BYTES} bytes", hint="Give it in smaller parts.")
    if data.lstrip(b"\x0b\r\n\t ")[:3] in {b"MSH", b"FHS", b"BHS"}:
        return read_messages(data, default_issuer)
    rows = read_csv(data, COLUMNS, file="merges.csv")
    return [_told(row, default_issuer) for row in rows]


def read_messages(data: bytes, default_issuer: str) -> list[ToldMerge]:
    """Read HL7 v2 messages, one or many, framed (MLLP, batch) or not.

    Raises:
        MessageError: one is no ADT^A40 that can be followed.
    """
    # Segments are found before the character set is known: their names and separators are ASCII in all that are allowed.
    text = _BLOCK.sub("", data.decode("latin-1")).replace("\r\n", "\r").replace("\n", "\r")
    messages: list[list[str]] = []
    for segment in text.split("\r"):
        if segment.startswith("MSH"):
            messages.append([segment])
        elif messages and segment.strip() and not segment.startswith(("BTS", "FTS", "BHS", "FHS")):
            messages[-1].append(segment)
    if not messages:
        raise MessageError(1, "there is no message")
    if len(messages) > MAX_MESSAGES:
        raise MessageError(MAX_MESSAGES, "there are too many messages", "Give them in smaller parts.")
    told: list[ToldMerge] = []
    for number, segments in enumerate(messages, start=1):
        told.extend(_message(number, "\r".join(segments), default_issuer))
    return told


def _message(number: int, text: str, default_issuer: str) -> list[ToldMerge]:
    try:
        decoded = _decoded(text)
        _check_delimiters(decoded)
        message = hl7.parse(decoded)
        trigger = str(message["MSH.F9.R1.C2"])
        segments = [(str(segment[0]), segment) for segment in message]
    except _FAULTS:
        trigger, segments = None, []
    if trigger is None:
        raise MessageError(number, "is not an HL7 v2 message of a character set that is known")
    if trigger in _UNMERGE:
        raise MessageError(
            number,
            "undoes a merge",
            "Merges are not undone here: pseudonyms that were given out cannot be taken apart again. Have the images of "
            "both patients removed and ingest them again under a new project.",
        )
    if trigger not in _MERGE:
        raise MessageError(number, "is not ADT^A40 (merge patient)", "Give merges only.")
    told: list[ToldMerge] = []
    survivors: list[Identity] = []
    for name, segment in segments:
        if name == "PID":
            survivors = _identities(number, segment, 3, default_issuer)
        elif name == "MRG":
            priors = _identities(number, segment, 1, default_issuer)
            told.extend(ToldMerge(prior, _survivor(number, prior, survivors)) for prior in priors)
    if not told:
        raise MessageError(number, "names no prior patient (MRG-1)")
    return told


def _check_delimiters(text: str) -> None:
    """See that MSH-1 and MSH-2 (HL7 v2.5.1 section 2.5.4) name five delimiters that can be told apart.

    The parser takes any characters for them, and asserts where two are the same.

    Raises:
        ValueError: they do not.
    """
    separator, encoding = text[3], text[4:].split(text[3], 1)[0]
    delimiters = separator + encoding
    # A fifth encoding character, for truncation, came with v2.7.
    if len(encoding) not in {4, 5} or len(set(delimiters)) != len(delimiters):
        raise ValueError
    if not all(character in string.punctuation for character in delimiters):
        raise ValueError


def _decoded(text: str) -> str:
    header = text.split("\r", 1)[0]
    fields = header.split(header[3])
    # MSH-1 is the separator itself, so MSH-18 stands at 17.
    name = fields[17].split("~")[0].strip() if len(fields) > 17 else ""
    return text.encode("latin-1").decode(_CHARACTER_SETS[name])


def _identities(number: int, segment: hl7.Segment, field: int, default_issuer: str) -> list[Identity]:
    try:
        found = [_identity(repetition, default_issuer) for repetition in segment[field]]
    except _FAULTS:
        found = []
    found = [each for each in found if each[1]]
    if not found or any(len(part) > MAX_IDENTITY_CHARACTERS for each in found for part in each):
        raise MessageError(number, f"has no patient identifier in {segment[0]}-{field}")
    return found


def _identity(repetition: object, default_issuer: str) -> Identity:
    if isinstance(repetition, hl7.Repetition):
        components = [_first(component) for component in repetition]
    else:
        components = [str(repetition)]
    authority = components[3].strip() if len(components) > 3 else ""
    return authority or default_issuer, components[0].strip()


def _first(component: object) -> str:
    # CX-4 is an HD, whose first subcomponent is the namespace.
    return str(component[0]) if isinstance(component, hl7.Component) and len(component) else str(component)


def _survivor(number: int, prior: Identity, survivors: list[Identity]) -> Identity:
    """Return the surviving identifier of the same authority, or the only one."""
    same = [each for each in survivors if each[0] == prior[0]]
    for candidates in (same, survivors):
        if len(candidates) == 1:
            return candidates[0]
    raise MessageError(number, "has no single surviving identifier (PID-3) for a prior one (MRG-1)")


def _told(row: CsvRow, default_issuer: str) -> ToldMerge:
    old_id, new_id = row.required("old_id"), row.required("new_id")
    old = (row.values["old_issuer"] or default_issuer, old_id)
    new = (row.values["new_issuer"] or default_issuer, new_id)
    for column, value in zip(COLUMNS, (*old, *new), strict=True):
        if len(value) > MAX_IDENTITY_CHARACTERS:
            raise row.error(column, f"has over {MAX_IDENTITY_CHARACTERS} characters")
    return ToldMerge(old, new)
