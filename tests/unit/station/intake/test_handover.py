import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.documents import digest_of
from policies.errors import TrustError
from station.handover import (
    GENESIS,
    ClinicalContent,
    ClinicalRow,
    ConsentContent,
    ConsentRecord,
    HandoverError,
    HandoverLog,
    InstanceRecord,
    InstancesContent,
    VerifiedEntry,
    instance_path,
    load_public_key,
    read_handover,
    read_instance,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATIENT = "P" + "A" * 20


def consent(number: int) -> ConsentContent:
    record = ConsentRecord(
        patient=PATIENT, purpose="research-participants", decision="consent", date="2026-01-31"
    )
    return ConsentContent(consent_sequence=number, source_date=NOW, records=(record,))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def log(tmp_path: Path, key: Ed25519PrivateKey) -> HandoverLog:
    log = HandoverLog(tmp_path, key)
    for number in range(1, 5):
        log.append(consent(number), f"consent:{number}", now=NOW)
    return log


def everything(
    folder: Path, key: Ed25519PrivateKey, after: int = 0, digest: str | None = None
) -> list[VerifiedEntry]:
    return list(read_handover(folder, key.public_key(), after, digest))


def entry_file(folder: Path, number: int) -> Path:
    return folder / "log" / f"{number:08d}.json"


@pytest.mark.usefixtures("log")
def test_what_was_appended_is_read_in_order(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    entries = everything(tmp_path, key)
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4]
    assert [entry.content for entry in entries] == [consent(number) for number in range(1, 5)]
    assert entries[0].digest == digest_of(entry_file(tmp_path, 1).read_bytes())
    assert [entry.sequence for entry in everything(tmp_path, key, 2, entries[1].digest)] == [3, 4]
    assert everything(tmp_path, key, 4, entries[3].digest) == []


def test_an_empty_log_holds_nothing(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    assert everything(tmp_path, key) == []
    assert HandoverLog(tmp_path, key).last() is None


def test_the_same_operation_again_is_the_same_entry(
    tmp_path: Path, key: Ed25519PrivateKey, log: HandoverLog
) -> None:
    again = log.append(consent(4), "consent:4", now=NOW)
    assert again == everything(tmp_path, key)[-1]
    assert not entry_file(tmp_path, 5).exists()


@pytest.mark.usefixtures("log")
def test_a_gap_is_found(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    entry_file(tmp_path, 3).unlink()
    with pytest.raises(HandoverError, match="entry 3 is missing"):
        everything(tmp_path, key)


@pytest.mark.usefixtures("log")
def test_a_log_that_went_back_is_found(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    seen = everything(tmp_path, key)
    entry_file(tmp_path, 4).unlink()
    with pytest.raises(HandoverError, match="is gone"):
        everything(tmp_path, key, 4, seen[3].digest)


def test_a_log_that_was_rewritten_is_found(tmp_path: Path, key: Ed25519PrivateKey, log: HandoverLog) -> None:
    seen = everything(tmp_path, key)
    for number in (3, 4):
        entry_file(tmp_path, number).unlink()
    log.append(consent(9), "other:3", now=NOW)
    log.append(consent(10), "other:4", now=NOW)
    assert len(everything(tmp_path, key)) == 4
    with pytest.raises(HandoverError, match="not the one read before"):
        everything(tmp_path, key, 4, seen[3].digest)


@pytest.mark.usefixtures("log")
def test_entries_cannot_change_places(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    two, three = entry_file(tmp_path, 2).read_bytes(), entry_file(tmp_path, 3).read_bytes()
    entry_file(tmp_path, 2).write_bytes(three)
    entry_file(tmp_path, 3).write_bytes(two)
    with pytest.raises(HandoverError, match="carries the sequence"):
        everything(tmp_path, key)


@pytest.mark.usefixtures("log")
def test_an_entry_of_the_same_key_but_another_past_does_not_follow(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey
) -> None:
    elsewhere = tmp_path_factory.mktemp("other")
    other = HandoverLog(elsewhere, key)
    for number in range(11, 15):
        other.append(consent(number), f"consent:{number}", now=NOW)
    entry_file(tmp_path, 3).write_bytes(entry_file(elsewhere, 3).read_bytes())
    with pytest.raises(HandoverError, match="does not follow"):
        everything(tmp_path, key)


@pytest.mark.usefixtures("log")
def test_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandoverError, match="signature"):
        everything(tmp_path, Ed25519PrivateKey.generate())


@pytest.mark.usefixtures("log")
def test_another_payload_type_is_refused(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    document = json.loads(entry_file(tmp_path, 1).read_text())
    document["payloadType"] = document["payloadType"].replace("consent", "clinical")
    entry_file(tmp_path, 1).write_text(json.dumps(document))
    with pytest.raises(HandoverError, match="signature"):
        everything(tmp_path, key)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_found_or_harmless(
    place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    key = Ed25519PrivateKey.generate()
    log = HandoverLog(folder, key)
    log.append(consent(1), "one", now=NOW)
    log.append(consent(2), "two", now=NOW)
    data = bytearray(entry_file(folder, 1).read_bytes())
    place %= len(data)
    if data[place] == byte:
        return
    data[place] = byte
    entry_file(folder, 1).write_bytes(bytes(data))
    with pytest.raises(HandoverError):
        everything(folder, key)


@pytest.mark.usefixtures("log")
def test_a_signed_document_that_is_no_entry_is_refused(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    from policies.signing import generate_key, load_signer, sign_envelope

    path = tmp_path / "k.pem"
    generate_key(path)
    signer = load_signer(path)
    payload = b'{"version":1,"surprise":true}'
    entry_file(tmp_path, 1).write_bytes(
        sign_envelope(payload, "application/vnd.pht.handover.consent+json;version=1", signer)
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_hex))
    with pytest.raises(HandoverError, match="is not an entry"):
        list(read_handover(tmp_path, public))


@pytest.mark.usefixtures("log")
def test_a_link_in_the_log_is_not_followed(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    target = tmp_path / "elsewhere.json"
    entry_file(tmp_path, 2).rename(target)
    entry_file(tmp_path, 2).symlink_to(target)
    with pytest.raises(HandoverError, match="cannot be read"):
        everything(tmp_path, key)


@pytest.mark.usefixtures("log")
def test_entries_before_the_fault_are_good(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    entry_file(tmp_path, 3).write_bytes(b"{}")
    entries = read_handover(tmp_path, key.public_key())
    read = [next(entries).sequence, next(entries).sequence]
    with pytest.raises(HandoverError):
        next(entries)
    assert read == [1, 2]


def instance(data: bytes) -> InstanceRecord:
    return InstanceRecord(
        file=digest_of(data), size_bytes=len(data), collection="cxr", patient=PATIENT, study_uid="2.25.1",
        series_uid="2.25.2", sop_instance_uid="2.25.3", sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1", modality="DX", body_part="CHEST", view_position="PA",
    )  # fmt: skip


def test_an_instance_is_read_only_as_itself(tmp_path: Path) -> None:
    record = instance(b"the file")
    path = instance_path(tmp_path, record.file)
    assert path.relative_to(tmp_path).as_posix() == f"instances/{record.file[7:9]}/{record.file[7:]}.dcm"
    with pytest.raises(HandoverError, match="cannot be read"):
        read_instance(tmp_path, record)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the file")
    assert read_instance(tmp_path, record) == b"the file"
    for other in (b"the fil", b"THE FILE", b"the file and more"):
        path.write_bytes(other)
        with pytest.raises(HandoverError):
            read_instance(tmp_path, record)


@pytest.mark.parametrize(
    "change",
    [
        {"patient": "3748755"},
        {"patient": "Testpatient^Eva"},
        {"study_uid": "1.2.826.0.1.3680043.8.498.111.2"},
        {"file": "sha256:../../etc/passwd"},
        {"modality": "eva testpatient"},
        {"body_part": "x" * 17},
    ],
)
def test_an_entry_cannot_carry_an_original(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        InstanceRecord.model_validate({**instance(b"x").model_dump(), **change})


@pytest.mark.parametrize("value", ["1975-11-22 Eva", "free text of any kind", "x" * 33, [1], {"a": 1}])
def test_clinical_values_are_numbers_and_codes(value: object) -> None:
    with pytest.raises(ValidationError):
        ClinicalRow.model_validate({"patient": PATIENT, "study_uid": "2.25.1", "values": {"note": value}})


def test_contents_of_all_kinds_are_read_back(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    values = {"pneumonia": 1, "temperature_c": 37.5, "sex": "F", "smoker": True, "crp_mg_l": None}
    contents = [
        InstancesContent(instances=(instance(b"x"),)),
        ClinicalContent(
            collection="cxr",
            profile="thorax-1@1",
            rows=(ClinicalRow(patient=PATIENT, study_uid="2.25.1", values=values),),
        ),
        consent(1),
    ]
    log = HandoverLog(tmp_path, key)
    for number, content in enumerate(contents):
        log.append(content, f"op:{number}", now=NOW)
    assert [entry.content for entry in everything(tmp_path, key)] == contents
    first = json.loads(base64.b64decode(json.loads(entry_file(tmp_path, 1).read_text())["payload"]))
    assert first["previous"] == GENESIS


def test_a_public_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "handover.pub").write_text("not a key")
    for name in ("handover.pub", "absent.pub"):
        with pytest.raises(TrustError):
            load_public_key(tmp_path / name)
