"""A minor whose parents consented turns 16 in the middle of a run: the container stops, and the cohort is frozen without them.

Intake's side is the register's own resolution, at two moments; compute's is the whole of it.
"""

import base64
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from catalogue_log import NOW, patient
from cohort_files import KEY
from station_kit import PATIENTS, StationKit, in_the_middle, settings

from policies.policy import ConsentMode
from policies.splits import Split
from policies.wire.instructions import Status
from station.handover import ConsentContent
from station.intake.consent.register_file import read_register
from station.intake.consent.resolution import Bearer, Standing, resolve
from station.intake.consent.rules import ConsentRules

HEADER = "patient_id,decision,purpose,date,given_by,birth_date\n"
MINOR = next(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.TRAINING)
BIRTHDAY = NOW.date() + timedelta(days=1)
RULES = ConsentRules(timezone="Europe/Amsterdam")


def register() -> bytes:
    """Everybody consents; one is fifteen, whose parents and who themself agreed."""
    rows = []
    for number in PATIENTS:
        born = date(BIRTHDAY.year - 16, BIRTHDAY.month, BIRTHDAY.day) if number == MINOR else date(1960, 1, 1)
        givers = ("patient", "parent") if number == MINOR else ("patient",)
        rows += [f"{number},consent,research-participants,2026-01-01,{giver},{born}" for giver in givers]
    return (HEADER + "\n".join(rows) + "\n").encode()


def hand_over(kit: StationKit) -> None:
    """What intake's hourly look does, at the kit's clock."""
    read = read_register(register())
    bearers = [Bearer(patient(number), "", str(number)) for number in PATIENTS]
    resolved = resolve(Standing.of(read.decisions, read.facts), bearers, RULES.today(kit.clock()))
    kit.intake.consents += 1
    content = ConsentContent(consent_sequence=kit.intake.consents, source_date=NOW, records=resolved.records)
    kit.intake.log.append(content, kit.intake.operation(), now=kit.clock())


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    asked = (
        settings()
        .collections[0]
        .model_copy(
            update={"consent_mode": ConsentMode.OPT_IN, "opt_out_ground": None, "opt_out_review": None}
        )
    )
    kit = StationKit.make(tmp_path, {"data.consent_modes": ["opt-in"]}, collections=(asked,))
    hand_over(kit)
    kit.catalogue.sync()
    yield kit
    kit.close()


def patients_of(kit: StationKit) -> frozenset[str]:
    return next(iter(kit.warm._prepared.values())).cohort.patients


def test_a_minor_who_turns_16_in_the_middle_of_a_message_ends_it(kit: StationKit) -> None:
    envelope = kit.ready()
    before = patients_of(kit)
    assert patient(MINOR) in before
    # 23:30 in Amsterdam on the eve, while the train works; half an hour later it is the birthday there.
    kit.clock.forward(hours=10, minutes=30)
    kit.policy_is_fresh()
    with in_the_middle(kit, envelope) as (busy, replies):
        hand_over(kit)
        kit.catalogue.sync()
        assert kit.warm.withdraw(kit.gatekeeper.consenting) == [], "not yet"
        kit.clock.forward(minutes=30)
        hand_over(kit)
        kit.catalogue.sync()
        assert len(kit.warm.withdraw(kit.gatekeeper.consenting)) == 1
        busy.go_on.set()
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert not kit.sandbox.running
    reply, _ = kit.message(envelope)
    assert reply.status is Status.RELEASED
    assert patients_of(kit) == before - {patient(MINOR)}


def test_compute_gets_no_date_of_birth(kit: StationKit) -> None:
    payloads = [
        base64.b64decode(json.loads(path.read_bytes())["payload"])
        for path in (kit.intake.folder / "log").glob("*.json")
    ]
    born = f"{BIRTHDAY.year - 16}-{BIRTHDAY.month:02}-{BIRTHDAY.day:02}".encode()
    assert len(payloads) > 3
    assert not [one for one in payloads if born in one or b"1960-01-01" in one]
