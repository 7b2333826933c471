"""An instance that is removed, or a patient who is merged, while a run uses it: as at a withdrawal (invariant I7)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from catalogue_log import patient
from cohort_files import KEY, encoded, picture, radiograph
from station_kit import PATIENTS, StationKit, honest, in_the_middle, order_digest

from policies.splits import Split
from policies.wire.instructions import Kind, Status

Change = Callable[[StationKit], None]


def one_of(split: Split, besides: int | None = None) -> int:
    """A patient whom this station's key puts there."""
    return next(n for n in PATIENTS if KEY.split_of(patient(n)) is split and n != besides)


def look(kit: StationKit) -> None:
    """What the watcher of compute does about what intake hands over."""
    kit.catalogue.sync()
    kit.warm.withdraw(kit.gatekeeper.consenting)


def remove(kit: StationKit) -> None:
    kit.intake.removed(one_of(Split.TRAINING), reason="rejected")


def merge(kit: StationKit) -> None:
    kit.intake.merged(one_of(Split.TRAINING), into=one_of(Split.TESTING))


def mask_again(kit: StationKit) -> None:
    # The same instance under another digest: the file that the run used is no longer the one to use.
    kit.intake.instances(one_of(Split.TRAINING), data=encoded(radiograph(picture(), PatientComments="again")))


def files(cohort: str) -> int:
    return len(list((Path(cohort) / "images").iterdir()))


CHANGES = pytest.mark.parametrize(
    ("change", "fewer"), [(remove, 1), (merge, 1), (mask_again, 0)], ids=["removed", "merged", "again"]
)


@CHANGES
def test_in_the_middle_of_a_message_it_ends_the_container_and_freezes_again(
    kit: StationKit, change: Change, fewer: int
) -> None:
    envelope = kit.ready()
    first = kit.sandbox.started[0]
    before = files(first.spec.cohort_dir)
    with in_the_middle(kit, envelope) as (_, replies):
        change(kit)
        look(kit)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert first.killed.is_set()
    look(kit)
    assert not Path(first.spec.cohort_dir).exists(), "the cohort is wiped"
    assert kit.releases.list() == []
    reply, _ = kit.message(envelope)
    assert reply.status is Status.RELEASED
    assert files(kit.sandbox.started[1].spec.cohort_dir) == before - fewer
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.failures == 0, "not the train's fault"
    events = kit.events()
    assert events.index("data-withdrawn") < events.index("container-ended") < events.index("cohort-wiped")
    assert "consent-withdrawn" not in events, "nobody withdrew"


@CHANGES
def test_between_messages_the_next_one_sees_it(kit: StationKit, change: Change, fewer: int) -> None:
    envelope = kit.ready()
    before = files(kit.sandbox.started[0].spec.cohort_dir)
    change(kit)
    kit.catalogue.sync()
    assert kit.message(envelope)[0].status is Status.RELEASED
    assert len(kit.sandbox.started) == 2
    assert files(kit.sandbox.started[1].spec.cohort_dir) == before - fewer


@CHANGES
def test_while_the_train_answers_it_withholds_the_release(
    kit: StationKit, change: Change, fewer: int
) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        change(kit)
        return honest(request, cohort)

    kit.sandbox.train = train
    reply, _ = kit.message(envelope)
    assert (reply.status, reply.code) == (Status.WITHHELD, "CONSENT_WITHDRAWN")
    assert kit.releases.list() == []
    assert kit.shelf.pushed == []


def test_what_the_run_does_not_use_stops_nothing(kit: StationKit) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (busy, replies):
        kit.intake.removed(one_of(Split.TESTING))
        kit.intake.instances(one_of(Split.TRAINING), sop_instance_uid="2.25.99", series_uid="2.25.98")
        look(kit)
        busy.go_on.set()
    assert replies[0][0].status is Status.RELEASED
    assert "data-withdrawn" not in kit.events()


def test_one_of_two_images_is_enough(kit: StationKit) -> None:
    number = one_of(Split.TRAINING)
    data = encoded(radiograph(picture()))
    kit.intake.instances(number, data=data, sop_instance_uid="2.25.99", series_uid="2.25.98")
    kit.catalogue.sync()
    envelope = kit.ready()
    kit.intake.removed(number)
    look(kit)
    assert not kit.sandbox.running, "the patient stays, one of their images does not"
    assert kit.message(envelope, Kind.TRAIN)[0].status is Status.RELEASED


def test_a_withdrawal_beside_a_removal_is_audited_as_one(kit: StationKit) -> None:
    kit.ready()
    kit.intake.removed(one_of(Split.TRAINING))
    kit.intake.consent(**{f"p{one_of(Split.TRAINING, besides=one_of(Split.TRAINING))}": "objection"})
    look(kit)
    assert "consent-withdrawn" in kit.events()
