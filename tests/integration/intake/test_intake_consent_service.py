"""The consent register over intake's API: imports, what it shows, what it refuses, and who a usage list is about."""

import base64
import csv
import io
import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from test_intake_service import Service, handed_over, source, wait_for

from station.handover import ConsentContent, ConsentRecord, load_public_key, read_handover
from station.intake.installation import MIGRATIONS, init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.intake.staging import stage_folder
from station.storage.database import open_database
from station.usage_list import Usage, UsageList, sign_usage_list

HEADER = b"patient_id,decision,purpose,date\n"
FULL = b"patient_id,issuer,decision,purpose,date,valid_until,given_by,birth_date\n"
PARTICIPANTS = "research-participants"
FIRST = "3748755"


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def service(paths: IntakePaths, tmp_path: Path) -> Iterator[Service]:
    """A service that holds three patients' images."""
    service = Service(paths, tmp_path / "log")
    name = stage_folder(paths.home, source(tmp_path / "source", 3))
    service.client.post("/v1/batches", json={"batch": name, "collection": "cxr"}).raise_for_status()
    # A batch is finished by the database; the log, which others read, is appended to after that.
    wait_for(lambda: bool(service.batch(name)["finished"]) and len(handed_over(paths)) == 3)
    yield service
    if service.process.poll() is None:
        service.end(signal.SIGKILL)


def states(paths: IntakePaths) -> list[ConsentContent]:
    entries = read_handover(paths.handover, load_public_key(paths.handover_public_key))
    return [entry.content for entry in entries if isinstance(entry.content, ConsentContent)]


def records(paths: IntakePaths) -> tuple[ConsentRecord, ...]:
    return states(paths)[-1].records


def send(service: Service, data: bytes, **params: str) -> dict[str, object]:
    answer = service.client.post("/v1/consent", content=data, params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_register_is_replaced_and_its_history_kept(service: Service, paths: IntakePaths) -> None:
    consent = f"{FIRST},consent,{PARTICIPANTS},2020-11-05\n".encode()
    assert send(service, HEADER + consent)["handed_over"] == 1
    objection = f"{FIRST},objection,,2021-11-05\n".encode()
    assert send(service, HEADER + objection)["handed_over"] == 3
    # The next register has forgotten it, and somebody else's consent is there.
    other = f"3748756,consent,{PARTICIPANTS},2020-11-05\n".encode()
    assert send(service, HEADER + other)["handed_over"] == 4
    assert sorted(record.decision for record in records(paths)) == ["consent", *["objection"] * 3]
    shown = service.client.post("/v1/consent/show", json={"patient_id": FIRST}).raise_for_status().json()
    (card,) = shown["patients"]
    assert card["images_here"]
    assert {row["purpose"]: (row["answer"], row["ground"]) for row in card["answers"]} == {
        "registry": ("objection", "objected"),
        "research-participants": ("objection", "objected"),
        "research-third-parties": ("objection", "objected"),
        "research-commercial": ("objection", "objected"),
    }
    assert [(line["decision"], line["stated"]) for line in shown["history"]] == [
        ("consent", True), *[("objection", True)] * 4, ("consent", False), *[("objection", False)] * 4,
    ]  # fmt: skip
    # Only a later consent takes an objection's place, for each purpose and for the supply to the registry.
    later = "".join(f"{FIRST},consent,{each},2022-01-01\n" for each in ("registry", PARTICIPANTS))
    send(service, HEADER + later.encode())
    decided = {record.purpose: record.decision for record in records(paths)}
    assert decided == {
        "research-participants": "consent",
        "research-third-parties": "objection",
        "research-commercial": "objection",
    }
    status = service.client.get("/v1/consent/status").json()
    assert (status["imports"], status["sequence"]) == (4, len(states(paths)))
    assert status["registry_apart"], "from now on the supply is a question of its own"
    assert status["grounds"] == {"objected": 1, "stated": 1}


def test_the_history_can_only_grow(service: Service, paths: IntakePaths) -> None:
    send(service, HEADER + f"{FIRST},objection,,2021-11-05\n".encode())
    assert service.end(signal.SIGTERM) == 0
    database = open_database(paths.database, MIGRATIONS)
    for statement in ("DELETE FROM consent_decisions", "UPDATE consent_decisions SET decision = 'consent'"):
        with pytest.raises(IntegrityError, match="append-only"), database.write() as session:
            session.execute(text(statement))
    database.close()


def test_a_register_that_cannot_be_read_changes_nothing(service: Service, paths: IntakePaths) -> None:
    send(service, HEADER + f"{FIRST},consent,{PARTICIPANTS},2020-11-05\n".encode())
    before = states(paths)
    wrong = service.client.post("/v1/consent", content=FULL + b"1,,consent,,2020-01-01,,,\n")
    assert (wrong.status_code, wrong.json()["exit_code"]) == (422, 8)
    assert (
        wrong.json()["title"] == "consent.csv, line 2, column purpose: is empty: a consent names its purpose"
    )
    for form, data in (("fhir", b"{}"), ("ndjson", b"{}")):
        answer = service.client.post("/v1/consent", content=data, params={"format": form})
        assert answer.status_code == 422
        assert "codes" in answer.json()["title"], "nobody wrote down what codes mean here"
    assert service.client.post("/v1/consent", content=HEADER, params={"format": "xml"}).status_code == 422
    assert states(paths) == before
    assert service.client.get("/v1/consent/status").json()["imports"] == 1
    unknown = service.client.post("/v1/consent/show", json={"patient_id": "77"})
    assert unknown.status_code == 404


def test_birth_dates_in_a_file_of_their_own_end_what_parents_said(
    service: Service, paths: IntakePaths
) -> None:
    send(service, FULL + f"{FIRST},,consent,{PARTICIPANTS},2020-11-05,,parent,\n".encode())
    assert [record.decision for record in records(paths)] == ["none"], (
        "without a birth date a parent speaks for nobody"
    )
    year = datetime.now(UTC).year
    for born, expected in ((f"{year - 10}-01-01", "consent"), (f"{year - 30}-01-01", "none")):
        facts = f"patient_id,birth_date,deceased\n{FIRST},{born},\n".encode()
        service.client.post("/v1/consent/patients", content=facts).raise_for_status()
        assert [record.decision for record in records(paths)] == [expected]
    assert all(str(year - 10) not in state.model_dump_json() for state in states(paths))


def test_what_time_ends_is_handed_over_without_anybody_asking(tmp_path: Path) -> None:
    paths = init_intake(tmp_path / "home")
    now = [datetime(2026, 11, 22, 12, tzinfo=UTC)]
    with Intake(paths, IntakeSettings(), clock=lambda: now[0]) as intake:
        intake.import_folder(source(tmp_path / "source", 1), "cxr")
        intake.import_consent(FULL + f"{FIRST},,consent,{PARTICIPANTS},2020-11-05,2026-11-22,,\n".encode())
        assert [record.decision for record in records(paths)] == ["consent"]
        source_date = states(paths)[-1].source_date
        assert not intake.consent.review()
        assert len(states(paths)) == 1, "nothing changed, nothing is handed over"
        now[0] = datetime(2026, 11, 23, 0, 5, tzinfo=UTC)
        assert intake.consent.review()
        assert [record.decision for record in records(paths)] == ["none"]
        assert states(paths)[-1].source_date == source_date, "looked at again, the source is no younger"


def test_fhir_needs_codes_and_then_counts(tmp_path: Path) -> None:
    paths = init_intake(tmp_path / "home")
    codes = tmp_path / "codes.json"
    codes.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "purposes": [{"system": "urn:form", "code": "b", "purpose": PARTICIPANTS}],
                "issuers": [{"system": "urn:ids", "issuer": ""}],
            }
        )
    )
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}
    resource = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [scope]},
        "patient": {"identifier": {"system": "urn:ids", "value": FIRST}},
        "dateTime": "2024-05-06",
        "provision": {"type": "permit", "purpose": [{"system": "urn:form", "code": "b"}]},
    }
    rules = IntakeSettings().consent.model_copy(update={"codes_file": codes})
    with Intake(paths, IntakeSettings(consent=rules)) as intake:
        intake.import_folder(source(tmp_path / "source", 1), "cxr")
        from station.intake.consent.desk import RegisterFormat

        report = intake.consent.import_register(json.dumps(resource).encode(), RegisterFormat.FHIR_LINES)
        assert (report.entries, report.handed_over) == (1, 1)
        assert [record.decision for record in records(paths)] == ["consent"]


def usage(paths: IntakePaths, *pseudonyms: str, key: Ed25519PrivateKey | None = None) -> str:
    """A list as compute signs it; the station's card names its key."""
    identity = Ed25519PrivateKey.generate()
    raw = identity.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    paths.card.write_text(json.dumps({"identity_key": raw.hex()}))
    use = Usage(
        policy_id="cxr-classification",
        policy_version=1,
        title="=HYPERLINK(pneumonia)",
        requester="UMC Amstel",
        purpose="method-development",
        order="sha256:" + "a" * 64,
        cohort="sha256:" + "b" * 64,
        first_use=datetime(2026, 11, 22, tzinfo=UTC),
        last_use=datetime(2026, 11, 23, tzinfo=UTC),
        patients=pseudonyms,
    )
    listed = UsageList(station="amstel", written_at=datetime(2026, 11, 24, tzinfo=UTC), uses=(use,))
    return sign_usage_list(listed, key or identity).decode()


def test_who_a_usage_list_is_about(service: Service, paths: IntakePaths, tmp_path: Path) -> None:
    send(
        service, HEADER + b"".join(f"374875{n},consent,{PARTICIPANTS},2020-11-05\n".encode() for n in (5, 6))
    )
    here = sorted({record.patient for record in records(paths)})
    stranger = "P" + "A" * 20
    listed = usage(paths, *here, stranger)
    answer = service.client.post("/v1/usage/resolve", json={"usage_list": listed}).raise_for_status().json()
    assert (answer["lines"], answer["unknown"]) == (2, 1)
    rows = list(csv.DictReader(io.StringIO(answer["csv"])))
    assert {row["patient_id"] for row in rows} == {FIRST, "3748756"}
    assert {row["policy"] for row in rows} == {"cxr-classification"}
    assert {row["title"] for row in rows} == {"'=HYPERLINK(pneumonia)"}, "no formula for a spreadsheet"
    asked = service.client.post("/v1/usage/resolve", json={"usage_list": listed, "patient_id": FIRST}).json()
    assert [row["patient_id"] for row in csv.DictReader(io.StringIO(asked["csv"]))] == [FIRST]
    nobody = service.client.post("/v1/usage/resolve", json={"usage_list": listed, "patient_id": "77"})
    assert nobody.status_code == 404
    forged = usage(paths, *here, key=Ed25519PrivateKey.generate())
    assert service.client.post("/v1/usage/resolve", json={"usage_list": forged}).status_code == 403
    assert service.end(signal.SIGTERM) == 0
    database = open_database(paths.database, MIGRATIONS)
    with database.read() as session:
        audit = b"\n".join(bytes(body) for (body,) in session.execute(text("SELECT body FROM intake_audit")))
    database.close()
    assert audit.count(b"intake.usage.resolved") == 2
    log = (tmp_path / "log").read_bytes() + audit
    assert not [word for word in (FIRST.encode(), b"Testpatient", b"HYPERLINK") if word in log]
    assert base64.b64encode(FIRST.encode()) not in log
