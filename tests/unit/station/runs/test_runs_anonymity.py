"""How well patients hide in the clinical table that a train would see: told before it is approved, refused where the hospital says so."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from catalogue_log import patient
from cohort_files import KEY
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from station_kit import MANIFEST, PATIENTS, StationKit, order_digest, settings

from policies.documents import digest_of
from policies.errors import NotFoundError, RefusedError
from policies.splits import Split
from policies.wire.instructions import Status
from station.evidence.collecting import EvidenceCollector
from station.runs.chains import Chains
from station.runs.desk import StationDesk

# A train that asks for what can single a person out.
ASKING = MANIFEST.replace(b"clinical_fields: [pneumonia]", b"clinical_fields: [pneumonia, sex, age_years]")
LAID = [n for n in PATIENTS if KEY.split_of(patient(n)) in {Split.TRAINING, Split.VALIDATION}]
ODD_ONE = LAID[0]


def make(folder: Path, minimum_k: int | None, approval: str = "never") -> StationKit:
    """Forty patients; one of those laid out is ninety, the others are between forty and fifty."""
    hospital = settings().hospital.model_copy(update={"minimum_k": minimum_k, "operator_approval": approval})
    policy = {"manifest_digest": digest_of(ASKING), "data.clinical_fields": ["pneumonia", "sex", "age_years"]}
    kit = StationKit.make(folder, policy, hospital=hospital)
    kit.shelf.put(ASKING)
    kit.intake.clinical(*PATIENTS, age_years=44)
    kit.intake.clinical(ODD_ONE, age_years=89)
    kit.catalogue.sync()
    return kit


def order(kit: StationKit) -> bytes:
    return kit.order(manifest_digest=digest_of(ASKING))


def desk_of(kit: StationKit) -> StationDesk:
    chains = Chains("amstel", kit.database, Ed25519PrivateKey.generate(), kit.clock, kit.paths.work)
    agent: Any = SimpleNamespace(last_contact=None)
    launcher: Any = kit.launcher
    return StationDesk(
        kit.settings, kit.gatekeeper, kit.catalogue, kit.runs, kit.warm, kit.releases, kit.audit, chains, launcher, agent,
        EvidenceCollector("amstel", kit.database, chains.identity, kit.paths.trust),
    )  # fmt: skip


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[StationKit, bytes]]:
    kit = make(tmp_path, None, "always")
    envelope = order(kit)
    assert kit.prepare(envelope).code == "OPERATOR_PENDING"
    yield kit, envelope
    kit.close()


def test_it_is_told_before_the_train_is_approved(waiting: tuple[StationKit, bytes]) -> None:
    kit, envelope = waiting
    desk = desk_of(kit)
    view = desk.anonymity(order_digest(envelope))
    assert (view.k, view.wanted, view.patients, view.patients_below, view.enforced) == (
        1,
        5,
        len(LAID),
        1,
        False,
    )
    rule = next(rule for rule in desk.explain(order_digest(envelope)) if rule.rule == "anonymity")
    assert (rule.verdict, rule.reasons) == ("yes", [])
    assert rule.note.startswith(f"k = 1: 1 of {len(LAID)} patients")
    kit.decide(envelope, "approve")
    assert kit.prepare(envelope).status is Status.ACCEPTED, "told, not refused"


def test_it_is_what_the_table_shows(waiting: tuple[StationKit, bytes]) -> None:
    import csv

    kit, envelope = waiting
    told = desk_of(kit).anonymity(order_digest(envelope))
    kit.decide(envelope, "approve")
    kit.prepare(envelope)
    with (Path(kit.sandbox.started[0].spec.cohort_dir) / "clinical.csv").open() as file:
        table = list(csv.DictReader(file))
    classes = Counter((row["sex"], row["age_years"]) for row in table)
    assert len({row["patient"] for row in table}) == len(table) == told.patients
    assert (min(classes.values()), len(classes)) == (told.k, told.classes)


def test_bands_make_patients_alike(waiting: tuple[StationKit, bytes]) -> None:
    kit, envelope = waiting
    kit.intake.clinical(ODD_ONE, age_years=47)
    desk = desk_of(kit)
    assert desk.collections()
    assert desk.anonymity(order_digest(envelope)).k == len(LAID), "44 and 47 are shown as one band"


def test_a_hospital_may_refuse_it(tmp_path: Path) -> None:
    kit = make(tmp_path, 2)
    envelope = order(kit)
    reply = kit.prepare(envelope)
    assert (reply.status, reply.code) == (Status.REFUSED, "DATA_ANONYMITY")
    assert not kit.sandbox.started
    assert list(kit.paths.cohorts.iterdir()) == [], "the cohort is wiped"
    desk = desk_of(kit)
    assert desk.anonymity(order_digest(envelope)).enforced
    rule = next(rule for rule in desk.explain(order_digest(envelope)) if rule.rule == "anonymity")
    assert [(reason.code, rule.verdict) for reason in rule.reasons] == [("DATA_ANONYMITY", "no")]
    kit.intake.clinical(ODD_ONE, age_years=44)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    kit.close()


def test_a_withdrawal_that_leaves_too_few_alike_refuses_the_next_message(tmp_path: Path) -> None:
    kit = make(tmp_path, 2)
    second = LAID[1]
    kit.intake.clinical(second, age_years=89)
    envelope = order(kit)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    kit.intake.consent(**{f"p{second}": "objection"})
    kit.catalogue.sync()
    reply, _ = kit.message(envelope)
    assert (reply.status, reply.code) == (Status.REFUSED, "DATA_ANONYMITY")
    kit.close()


def test_an_order_that_would_get_no_cohort_has_none_to_look_at(waiting: tuple[StationKit, bytes]) -> None:
    kit, envelope = waiting
    desk = desk_of(kit)
    with pytest.raises(NotFoundError):
        desk.anonymity("sha256:" + "0" * 64)
    kit.clock.forward(days=31)
    kit.policy_is_fresh()
    with pytest.raises(RefusedError) as caught:
        desk.anonymity(order_digest(envelope))
    assert caught.value.code == "CONSENT_STALE"
    rule = next(rule for rule in desk.explain(order_digest(envelope)) if rule.rule == "anonymity")
    assert (rule.verdict, rule.note) == ("yes", "no cohort to look at")
