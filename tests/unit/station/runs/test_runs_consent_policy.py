"""What is asked again while a run goes on: consent, policy, freshness; between messages, in the middle of one, at the release."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from board_kit import register_yaml
from catalogue_log import patient
from cohort_files import KEY
from station_kit import (
    PATIENTS,
    POLICY,
    STATION,
    STATIONS,
    StationKit,
    honest,
    in_the_middle,
    instruction,
    order_digest,
    prepare,
)

from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.documents import format_moment
from policies.errors import StorageError
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from policies.wire.instructions import Kind, Status
from station.compute import _start_watching


def in_training() -> int:
    """A patient whom this station's key puts among the training cases."""
    return next(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.TRAINING)


def objects(kit: StationKit, *numbers: int) -> None:
    """These patients object; intake hands the new state over, and the watcher takes it up."""
    kit.intake.consent(**{f"p{number}": "objection" for number in numbers})


def look(kit: StationKit) -> None:
    """What the watcher of compute does."""
    kit.catalogue.sync()
    kit.warm.withdraw(kit.gatekeeper.consenting)
    kit.gatekeeper.policy_set(fresh=False)
    kit.warm.revoke(kit.gatekeeper.no_longer_in_force)


def patients_in(kit: StationKit, cohort: str) -> set[str]:
    documents = json.loads((Path(cohort) / "datalist.json").read_text())
    return {case["patient"] for split in ("training", "validation") for case in documents[split]}


def answered(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1
) -> tuple[str, str | None]:
    reply, _ = kit.message(envelope, kind, round_)
    return reply.status.value, reply.code


def test_a_withdrawal_in_the_middle_of_a_message_ends_it_and_freezes_again_without_the_patient(
    kit: StationKit,
) -> None:
    envelope = kit.ready()
    first = kit.sandbox.started[0]
    before = patients_in(kit, first.spec.cohort_dir)
    with in_the_middle(kit, envelope) as (_, replies):
        objects(kit, in_training())
        look(kit)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert first.killed.is_set()
    look(kit)
    assert not Path(first.spec.cohort_dir).exists(), "the cohort is wiped"
    assert kit.releases.list() == []
    assert answered(kit, envelope) == ("released", None)
    after = patients_in(kit, kit.sandbox.started[1].spec.cohort_dir)
    assert len(after) == len(before) - 1
    assert after < before, "the others keep their pseudonyms"
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.failures == 0
    events = kit.events()
    assert events.index("consent-withdrawn") < events.index("container-ended") < events.index("cohort-wiped")


def test_a_withdrawal_between_messages_wipes_at_the_next_look(kit: StationKit) -> None:
    envelope = kit.ready()
    cohort = Path(kit.sandbox.started[0].spec.cohort_dir)
    objects(kit, in_training())
    look(kit)
    assert not cohort.exists()
    assert kit.state(envelope) == "preparing"
    assert answered(kit, envelope) == ("released", None)


def test_a_withdrawal_that_only_the_message_sees_is_seen(kit: StationKit) -> None:
    envelope = kit.ready()
    objects(kit, in_training())
    kit.catalogue.sync()
    assert answered(kit, envelope) == ("released", None)
    assert len(kit.sandbox.started) == 2
    assert len(kit.sandbox.running) == 1


def test_a_withdrawal_while_the_train_answers_withholds_the_release(kit: StationKit) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        objects(kit, in_training())
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", "CONSENT_WITHDRAWN")
    assert kit.releases.list() == []
    assert kit.shelf.pushed == []
    kit.sandbox.train = honest
    assert answered(kit, envelope) == ("released", None)
    assert kit.releases.releases_used("cxr-classification") == 1


def test_a_patient_of_no_cohort_may_object_without_stopping_anything(kit: StationKit) -> None:
    envelope = kit.ready()
    testing = next(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.TESTING)
    with in_the_middle(kit, envelope) as (busy, replies):
        objects(kit, testing)
        look(kit)
        busy.go_on.set()
    assert replies[0][0].status is Status.RELEASED


def test_too_few_patients_after_a_withdrawal(kit: StationKit) -> None:
    envelope = kit.ready()
    objects(kit, *list(PATIENTS)[:35])
    look(kit)
    assert answered(kit, envelope) == ("refused", "DATA_TOO_FEW_PATIENTS")
    assert kit.state(envelope) == "refused"
    assert kit.prepare(envelope).code == "DATA_TOO_FEW_PATIENTS"
    assert list(kit.paths.cohorts.iterdir()) == []
    kit.intake.consent(p0="consent")
    assert kit.prepare(envelope).status is Status.ACCEPTED


def test_a_consent_register_that_grows_too_old_ends_what_runs(kit: StationKit) -> None:
    envelope = kit.ready(expires=format_moment(kit.clock() + _days(90)))
    kit.clock.forward(days=31)
    kit.policy_is_fresh()
    assert answered(kit, envelope) == ("refused", "CONSENT_STALE")
    assert not kit.sandbox.running
    assert kit.prepare(envelope).code == "CONSENT_STALE"


def test_a_consent_register_that_grows_too_old_in_the_middle_ends_the_message(kit: StationKit) -> None:
    envelope = kit.ready(expires=format_moment(kit.clock() + _days(90)))
    with in_the_middle(kit, envelope) as (_, replies):
        kit.clock.forward(days=31)
        kit.policy_is_fresh()
        look(kit)
    assert replies[0][0].code == "CONSENT_WITHDRAWN"


def test_without_any_consent_register_nothing_runs(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    with kit.database.write() as session:
        from station.catalogue.tables import SINGLE_ROW, CatalogueState

        state = session.get(CatalogueState, SINGLE_ROW)
        assert state is not None
        state.consent_sequence = state.consent_source_date = None
    assert answered(kit, envelope) == ("refused", "CONSENT_UNKNOWN")
    kit.close()


def _days(count: int):  # type: ignore[no-untyped-def] # noqa: ANN202
    from datetime import timedelta

    return timedelta(days=count)


def revoke(kit: StationKit) -> None:
    kit.board.repository.revoke("cxr-classification", 1, "a fault was found", now=kit.clock())
    kit.board.publish(now=kit.clock())
    kit.clock.forward(seconds=2)


def test_a_policy_revoked_between_two_messages_stops_the_run(kit: StationKit) -> None:
    envelope = kit.ready()
    assert answered(kit, envelope) == ("released", None)
    revoke(kit)
    assert answered(kit, envelope, Kind.EVALUATE) == ("refused", "POLICY_REVOKED")
    assert kit.state(envelope) == "stopped"
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []
    # A release that is recorded does not leave again either.
    assert answered(kit, envelope) == ("refused", "RUN_STOPPED")
    assert kit.prepare(envelope).code == "RUN_STOPPED"


def test_a_policy_revoked_in_the_middle_of_a_message_ends_it(kit: StationKit) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (_, replies):
        revoke(kit)
        look(kit)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "POLICY_REVOKED")]
    look(kit)
    assert kit.state(envelope) == "stopped"
    assert kit.releases.list() == []


def test_a_policy_revoked_while_the_train_answers_withholds_the_release(kit: StationKit) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        revoke(kit)
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", "POLICY_REVOKED")
    assert kit.releases.list() == []


def test_an_order_that_expires_in_the_middle_of_a_message_releases_nothing(kit: StationKit) -> None:
    envelope = kit.ready(expires=format_moment(kit.clock() + _days(1)))

    def train(request: object, cohort: object) -> object:
        kit.clock.forward(days=1, seconds=1)
        kit.policy_is_fresh()
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", "ORDER_EXPIRED")


def test_an_order_that_expired_holds_nothing_after_the_next_look(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(days=1, seconds=1)
    kit.policy_is_fresh()
    look(kit)
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []
    assert answered(kit, envelope) == ("refused", "ORDER_EXPIRED")


def test_a_stale_timestamp_refuses_and_nothing_stays_warm(kit: StationKit) -> None:
    envelope = kit.ready()
    # The witness's word lives an hour; no newer one comes.
    kit.clock.forward(hours=1, seconds=1)
    assert answered(kit, envelope) == ("refused", "TRUST_EXPIRED")
    assert not kit.sandbox.running
    assert kit.prepare(envelope).code == "TRUST_EXPIRED"
    kit.policy_is_fresh()
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert kit.state(envelope) == "ready", "what was not verifiable for a while is not over"


def test_a_stale_timestamp_in_the_middle_of_a_message_releases_nothing(kit: StationKit) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        kit.clock.forward(hours=1, seconds=1)
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", "TRUST_EXPIRED")


def test_a_mirror_that_hangs_keeps_no_release_and_no_audit_waiting(kit: StationKit) -> None:
    envelope = kit.ready()
    hanging, go_on = threading.Event(), threading.Event()
    policies = kit.gatekeeper._policies

    class Hanging:
        def refresh(self, now: object) -> object:
            hanging.set()
            go_on.wait(120)
            return policies.refresh(now)  # type: ignore[arg-type]

    kit.gatekeeper._policies = Hanging()  # type: ignore[assignment]
    thread = threading.Thread(target=lambda: kit.gatekeeper.policy_set(fresh=True), daemon=True)
    thread.start()
    assert hanging.wait(120)
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    verified = kit.warm._prepared[order_digest(envelope)].admitted.verified
    # As in the transaction that makes a release: answered although the refresh holds its lock.
    assert kit.gatekeeper.no_longer_in_force(verified) is None
    kit.clock.forward(seconds=60)
    assert answered(kit, envelope) == ("released", None), "the set that was verified last counts meanwhile"
    go_on.set()
    thread.join(120)


def test_one_order_that_cannot_be_wiped_yet_delays_no_other(kit: StationKit) -> None:
    first, second = kit.ready(), kit.ready()
    held, go_on = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with kit.warm.lock(order_digest(first)):
            held.set()
            go_on.wait(120)

    thread = threading.Thread(target=hold_the_lock, daemon=True)
    thread.start()
    assert held.wait(120)
    objects(kit, in_training())
    kit.catalogue.sync()
    assert sorted(kit.warm.withdraw(kit.gatekeeper.consenting)) == sorted(map(order_digest, (first, second)))
    assert not kit.sandbox.running, "both containers are killed at once"
    assert not kit.warm.has(order_digest(second)), "and the other one is wiped"
    assert kit.warm.has(order_digest(first))
    go_on.set()
    thread.join(120)
    assert kit.warm.withdraw(kit.gatekeeper.consenting) == [], "audited once"
    assert not kit.warm.has(order_digest(first))


def test_a_withdrawal_ends_the_container_even_where_it_cannot_be_audited(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.ready()
    objects(kit, in_training())
    kit.catalogue.sync()

    def full(*_: object) -> object:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(type(kit.audit), "append", full)
        with pytest.raises(StorageError):
            kit.warm.withdraw(kit.gatekeeper.consenting)
        assert not kit.sandbox.running


def test_a_hospital_that_changes_its_mind_is_asked_at_every_message(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.again()
    narrower = kit.settings.model_copy(
        update={
            "collections": tuple(
                c.model_copy(update={"countries": ("BE",)}) for c in kit.settings.collections
            )
        }
    )
    kit.settings = narrower
    kit.again()
    assert answered(kit, envelope) == ("refused", RefusalCode.HOSPITAL_COUNTRY.value)
    assert kit.service.handle(prepare(envelope), None)[0].code == "HOSPITAL_COUNTRY"


def test_finish_is_answered_again(kit: StationKit) -> None:
    envelope = kit.ready()
    for _ in range(2):
        reply, _ = kit.service.handle(instruction(envelope, Kind.FINISH), None)
        assert reply.status is Status.FINISHED


def test_a_mirror_that_hangs_keeps_no_container_whose_order_is_over(kit: StationKit) -> None:
    envelope = kit.ready()
    hanging, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    class Hanging:
        def refresh(self, now: object) -> object:
            hanging.set()
            go_on.wait(60)
            return Refused.because(RefusalCode.TRUST_UNREACHABLE)

    kit.gatekeeper._policies = Hanging()  # type: ignore[assignment]
    nothing = SimpleNamespace(look=lambda: None)
    station = SimpleNamespace(
        warm=kit.warm, gatekeeper=kit.gatekeeper, catalogue=kit.catalogue, keeper=nothing, retention=nothing,
        continuity=SimpleNamespace(messenger=nothing), clock=SimpleNamespace(beat=lambda: None), images=nothing,
        reviewing=kit.reviewing, predictions=nothing,
    )  # fmt: skip
    try:
        _start_watching(station, kit.settings, kit.audit, stop)  # type: ignore[arg-type]
        kit.gatekeeper.asked.set()
        assert hanging.wait(120)
        assert kit.sandbox.running, "nothing is over yet"
        kit.clock.forward(hours=1, seconds=1)
        kit.until(lambda: not kit.sandbox.running and not kit.warm.has(order_digest(envelope)))
        assert not go_on.is_set()
    finally:
        stop.set()
        kit.gatekeeper.asked.set()
        go_on.set()


def test_an_order_under_a_policy_that_was_never_seen_is_refused_only_once_the_mirror_has_answered(
    kit: StationKit,
) -> None:
    kit.gatekeeper.policy_set(fresh=True)
    kit.policy = kit.board.policy(1, {**POLICY, "id": "another"})
    kit.board.publish(kit.board.signed(kit.policy))
    envelope = kit.order(policy_id="another")
    mirror = kit.board.repository.folder
    aside = mirror.rename(mirror.with_name("aside"))
    # Published since: what was verified last does not know it, and says nothing about it.
    assert kit.service.handle(prepare(envelope), None)[0].code == "TRUST_UNREACHABLE"
    unknown = kit.order(policy_id="nobodys")
    assert kit.service.handle(prepare(unknown), None)[0].code == "TRUST_UNREACHABLE"
    aside.rename(mirror)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert kit.service.handle(prepare(unknown), None)[0].code == "POLICY_MISSING"


@pytest.mark.parametrize(
    ("stations", "lapsed", "code"),
    [
        (["berkel", "dommel"], "", "STATION_NOT_REGISTERED"),
        (STATIONS, STATION, "AGREEMENT_EXPIRED"),
        (STATIONS, "dommel", "AGREEMENT_EXPIRED"),
    ],
)
def test_a_station_that_leaves_the_register_in_the_middle_of_a_message_releases_nothing(
    kit: StationKit, stations: list[str], lapsed: str, code: str
) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        register = yaml.safe_load(register_yaml(2, *stations))
        for station in register["stations"]:
            if station["name"] == lapsed:
                station["agreement"]["expires"] = "2026-11-21"
        document = yaml.safe_dump(register).encode()
        signed = kit.board.signed(document, "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE)
        kit.board.repository.set_register(signed)
        kit.policy_is_fresh()
        kit.gatekeeper.policy_set(fresh=True)
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", code)
    assert kit.releases.list() == []
