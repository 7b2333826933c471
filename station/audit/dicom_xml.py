"""The audit as DICOM audit messages (PS3.15 A.5): from an export's lines to XML, for the hospital's own audit repository.

One ``AuditMessage`` per event, in the order of the log, under one element of ours that holds them together (the standard
transports messages one by one). The export of JSON lines with its signed head stays the evidence; this is a view of it.
Reads an export that was verified before; a line that is no event ends the translation.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from policies.documents import canonical_json, load_json
from policies.errors import DocumentError, StateError
from station.audit.chain import LINK_KEYS, read_body
from station.audit.events import AuditRecord
from station.audit.log import AUDIT_CHAIN, TIME_FORMAT
from station.audit.vocabulary import EVENT_IDS, EVENT_TYPES, OUTCOMES, STANDARD_NAMES

ROOT = "AuditMessages"
_HEAD = b'{"head":'
_APPLICATION_SERVER = "4"
_SYSTEM_OBJECT, _JOB, _SECURITY_RESOURCE = "2", "20", "13"


def to_dicom_xml(lines: Iterable[bytes], station: str) -> bytes:
    """Translate an export.

    Args:
        lines: of the export, without line ends; the signed head at the end is left out.
        station: the audit source's name.

    Raises:
        StateError: a line is no event of this version.
    """
    root = ET.Element(ROOT)
    for body in lines:
        if body and not body.startswith(_HEAD):
            root.append(_message(body, station))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()


def _message(body: bytes, station: str) -> ET.Element:
    value = read_body(AUDIT_CHAIN.name, body)
    content = {key: item for key, item in value.items() if key not in LINK_KEYS and key != "time"}
    try:
        record = load_json(AuditRecord, canonical_json(content), what="audit")
        moment = datetime.strptime(str(value["time"]), TIME_FORMAT).replace(tzinfo=UTC)
    except (DocumentError, KeyError, ValueError) as error:
        raise StateError("audit: a line of the export is not an event of this version") from error
    message = ET.Element("AuditMessage")
    message.append(_event(record, moment))
    message.extend(_participants(record, station))
    source = ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=station)
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    message.extend(_objects(record, value))
    return message


def _event(record: AuditRecord, moment: datetime) -> ET.Element:
    name = STANDARD_NAMES[record.event]
    event = ET.Element(
        "EventIdentification",
        EventActionCode=name.action,
        EventDateTime=moment.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=OUTCOMES[record.outcome],
    )
    event.append(_coded("EventID", name.event_id, "DCM", EVENT_IDS[name.event_id]))
    if name.event_type is not None:
        event.append(_coded("EventTypeCode", name.event_type, "DCM", EVENT_TYPES[name.event_type]))
    event.append(_coded("EventTypeCode", record.event.value, "PHT", record.event.value.replace("-", " ")))
    if record.codes:
        ET.SubElement(event, "EventOutcomeDescription").text = " ".join(record.codes)
    return event


def _participants(record: AuditRecord, station: str) -> Iterator[ET.Element]:
    person = not record.actor.startswith("station:")
    actor = ET.Element(
        "ActiveParticipant", UserID=record.actor, UserIsRequestor="true" if person else "false"
    )
    actor.append(_coded("RoleIDCode", record.actor.partition(":")[0], "PHT", "who did it"))
    yield actor
    if record.on_behalf_of is not None:
        behalf = ET.Element("ActiveParticipant", UserID=record.on_behalf_of, UserIsRequestor="true")
        behalf.append(_coded("RoleIDCode", "on-behalf-of", "PHT", "on whose behalf"))
        yield behalf
    if person:
        yield ET.Element("ActiveParticipant", UserID=f"station:{station}", UserIsRequestor="false")


def _objects(record: AuditRecord, value: Mapping[str, object]) -> Iterator[ET.Element]:
    about = ET.Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=record.object or str(value["seq"]),
        ParticipantObjectTypeCode=_SYSTEM_OBJECT,
        ParticipantObjectTypeCodeRole=_JOB if record.object else _SECURITY_RESOURCE,
    )
    about.append(_coded("ParticipantObjectIDTypeCode", "object", "PHT", "what it was about"))
    ET.SubElement(about, "ParticipantObjectName").text = record.object or f"audit entry {value['seq']}"
    details = {"seq": str(value["seq"]), "purpose": record.purpose or "", "detail": record.detail}
    details |= {key: str(number) for key, number in sorted(record.numbers.items())}
    for key, text in details.items():
        if text:
            # The standard carries every value in base64, so that no text can be taken for markup.
            encoded = base64.b64encode(text.encode()).decode()
            ET.SubElement(about, "ParticipantObjectDetail", type=key, value=encoded)
    yield about


def _coded(tag: str, code: str, system: str, meaning: str) -> ET.Element:
    return ET.Element(tag, {"csd-code": code, "codeSystemName": system, "originalText": meaning})
