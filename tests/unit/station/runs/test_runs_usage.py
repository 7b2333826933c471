"""Whose data were used in which study stays on record, from before the container starts until after everything is wiped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue_log import patient
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from station_kit import PATIENTS, StationKit, broken_disk, instruction, order_digest

from policies.errors import DocumentError, TrustError
from policies.wire.instructions import Kind
from station.runs.usage import UsageRecords
from station.usage_list import UsageList, read_usage_list


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    kit = StationKit.make(tmp_path)
    yield kit
    kit.close()


KEY = Ed25519PrivateKey.generate()


def exported(kit: StationKit, policy: str | None = None) -> UsageList:
    records = UsageRecords("amstel", kit.database, kit.audit, KEY, kit.clock)
    return read_usage_list(records.export(policy), KEY.public_key())


def test_every_patient_of_every_cohort_is_on_record_also_when_it_is_wiped(kit: StationKit) -> None:
    assert exported(kit).uses == ()
    first, second = kit.ready(), kit.ready()
    kit.clock.forward(minutes=5)
    kit.policy_is_fresh()
    kit.message(first)
    for envelope in (first, second):
        kit.service.handle(instruction(envelope, Kind.FINISH), None)
    assert list(kit.paths.cohorts.iterdir()) == []
    uses = exported(kit).uses
    assert {use.order for use in uses} == {order_digest(first), order_digest(second)}
    used = next(use for use in uses if use.order == order_digest(first))
    assert set(used.patients) < {patient(number) for number in PATIENTS}, "those for testing were not"
    assert len(used.patients) > 20
    assert (used.policy_id, used.policy_version) == ("cxr-classification", 1)
    assert used.last_use > used.first_use
    assert exported(kit, "another-policy").uses == ()
    assert "usage-exported" in kit.events()


def test_a_cohort_frozen_again_is_another_use(kit: StationKit) -> None:
    envelope = kit.ready()
    gone = exported(kit).uses[0].patients[0]
    number = next(number for number in PATIENTS if patient(number) == gone)
    kit.intake.consent(**{f"p{number}": "objection"})
    kit.catalogue.sync()
    kit.clock.forward(minutes=1)
    kit.message(envelope)
    uses = exported(kit).uses
    assert len(uses) == 2
    assert [gone in use.patients for use in uses] == [True, False], "what was used before stays on record"


def test_without_the_record_no_container_starts(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("station.runs.containers.note_use", broken_disk)
        kit.prepare(kit.order())
    assert kit.sandbox.started == []
    assert exported(kit).uses == ()
    assert "container-started" not in kit.events(), "neither is written without the other"


def test_nothing_of_the_record_can_be_removed(kit: StationKit) -> None:
    kit.ready()
    for statement in (
        "DELETE FROM cohort_usage_patients",
        "DELETE FROM cohort_usage",
        "UPDATE cohort_usage_patients SET patient = 'x'",
    ):
        with pytest.raises(IntegrityError, match="stays on record"), kit.database.write() as session:
            session.execute(text(statement))


def test_a_list_that_this_station_did_not_sign_is_refused(kit: StationKit) -> None:
    kit.ready()
    data = UsageRecords("amstel", kit.database, kit.audit, KEY, kit.clock).export()
    other = Ed25519PrivateKey.generate().public_key()
    changed = data.replace(b'"keyid"', b'"keyId"')
    for altered, key in ((data, other), (changed, KEY.public_key()), (b"{}", KEY.public_key())):
        with pytest.raises(TrustError):
            read_usage_list(altered, key)
    with pytest.raises(DocumentError):
        read_usage_list(data[:-1], KEY.public_key())
