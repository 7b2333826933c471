"""Every event is somewhere written, has its name in the standard audit trail, and reads as a DICOM audit message."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from policies.errors import StateError
from station.audit import AuditEvent, AuditLog, AuditRecord
from station.audit.dicom_xml import to_dicom_xml
from station.audit.export import export
from station.audit.vocabulary import EVENT_IDS, EVENT_TYPES, STANDARD_NAMES
from station.storage import open_database

SOURCE = Path(__file__).parents[4] / "station"


def test_every_event_has_its_standard_name_and_no_other() -> None:
    assert set(STANDARD_NAMES) == set(AuditEvent)
    for name in STANDARD_NAMES.values():
        assert name.event_id in EVENT_IDS
        assert name.event_type is None or name.event_type in EVENT_TYPES


@pytest.mark.parametrize("event", list(AuditEvent))
def test_every_event_is_written_by_something(event: AuditEvent) -> None:
    writers = [
        path
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "audit" and re.search(rf"AuditEvent\.{event.name}\b", path.read_text("utf-8"))
    ]
    assert writers, f"{event} is in the list and nothing writes it"


RECORDS = (
    AuditRecord(event=AuditEvent.STATION_STARTED, actor="station:compute"),
    AuditRecord(
        event=AuditEvent.DATA_USED,
        actor="station:compute",
        on_behalf_of="requester:UMC_A",
        purpose="health-research",
        object="sha256:" + "5" * 64,
        numbers={"round": 2, "patients": 40},
        detail="stage train <script>&amp;</script>",
    ),
    AuditRecord(
        event=AuditEvent.RELEASE_REFUSED,
        actor="station:compute",
        outcome="refused",
        codes=("CONSENT_WITHDRAWN", "BUDGET_RELEASES"),
        object="sha256:" + "5" * 64,
    ),
    AuditRecord(event=AuditEvent.OPERATOR_STOPPED, actor="operator:j.smit", object="sha256:" + "5" * 64),
    AuditRecord(event=AuditEvent.TRAIN_FAILED, actor="station:compute", outcome="failed"),
)


def messages(tmp_path: Path) -> list[ET.Element]:
    database = open_database(tmp_path / "station.db")
    audit = AuditLog(database)
    for record in RECORDS:
        audit.append(record)
    export(database, tmp_path / "audit.jsonl", lambda _: b'{"not": "looked at"}')
    document = to_dicom_xml((tmp_path / "audit.jsonl").read_bytes().splitlines(), "amstel")
    return list(ET.fromstring(document))  # noqa: S314 - our own


def test_an_export_reads_as_dicom_audit_messages(tmp_path: Path) -> None:
    found = messages(tmp_path)
    assert len(found) == len(RECORDS)
    for message, record in zip(found, RECORDS, strict=True):
        # The order and the mandatory parts of PS3.15 A.5.1.
        tags = list(dict.fromkeys(child.tag for child in message))
        assert tags == [
            "EventIdentification",
            "ActiveParticipant",
            "AuditSourceIdentification",
            "ParticipantObjectIdentification",
        ]
        event = message[0]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event.get("EventDateTime") or "")
        assert event.get("EventActionCode") in set("CRUDE")
        types = [(one.get("csd-code"), one.get("codeSystemName")) for one in event.iter("EventTypeCode")]
        assert (record.event.value, "PHT") in types
        for participant in message.iter("ActiveParticipant"):
            assert participant.get("UserID")
            assert participant.get("UserIsRequestor") in {"true", "false"}
        for coded in (*message.iter("EventID"), *message.iter("RoleIDCode")):
            assert coded.get("csd-code")
            assert coded.get("originalText")
    assert [message[0].get("EventOutcomeIndicator") for message in found] == ["0", "0", "4", "0", "8"]


def test_whose_data_for_whom_and_why_come_through(tmp_path: Path) -> None:
    used, refused, stopped = messages(tmp_path)[1:4]
    assert [one.get("UserID") for one in used.iter("ActiveParticipant")] == [
        "station:compute",
        "requester:UMC_A",
    ]
    details = {
        one.get("type"): base64.b64decode(one.get("value") or "").decode()
        for one in used.iter("ParticipantObjectDetail")
    }
    assert details["purpose"] == "health-research"
    assert details["detail"] == RECORDS[1].detail
    assert details["round"] == "2"
    assert refused.findtext(".//EventOutcomeDescription") == "CONSENT_WITHDRAWN BUDGET_RELEASES"
    (who, _) = stopped.iter("ActiveParticipant")
    assert (who.get("UserID"), who.get("UserIsRequestor")) == ("operator:j.smit", "true")


def test_what_is_no_event_is_not_translated() -> None:
    with pytest.raises(StateError):
        to_dicom_xml([b'{"event": "made-up"}'], "amstel")
