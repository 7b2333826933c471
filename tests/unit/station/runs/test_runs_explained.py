"""What `pht-station explain` says of an order: every rule with its verdict, the board's purposes and the patients left among them."""

from pathlib import Path

import pytest
from station_kit import MANIFEST, PATIENTS, STATION, StationKit, order_digest
from test_runs_anonymity import LAID, desk_of
from test_runs_withdrawn import requester, this_station, vouched

from policies.documents import digest_of
from policies.rules import admission
from policies.wire.instructions import Status
from station.web.views import RuleView

BOTH = ["research-participants", "research-third-parties"]


def verdicts(kit: StationKit, envelope: bytes) -> dict[str, RuleView]:
    return {rule.rule: rule for rule in desk_of(kit).explain(order_digest(envelope))}


def codes(rule: RuleView) -> list[str]:
    return [reason.code for reason in rule.reasons]


def test_every_rule_has_its_verdict(kit: StationKit) -> None:
    found = verdicts(kit, kit.ready())
    named = [
        line.split()[1] for line in (admission.__doc__ or "").splitlines() if line[:5].strip(" .").isdigit()
    ]
    assert list(found) == [
        "policy repository and signatures",
        *named,
        "cohort",
        "anonymity",
        "resources",
        "error codes",
    ]
    assert {rule.verdict for rule in found.values()} == {"yes"}


def test_a_purpose_that_the_table_does_not_permit(kit: StationKit) -> None:
    envelope = kit.ready()
    rules = [{"purpose": "health-research", "requester_class": "participant", "consents": BOTH}]
    kit.board.repository.set_purposes(kit.board.signed_purposes(2, {"rules": rules}))
    vouched(kit)
    kit.gatekeeper.policy_set(fresh=True)
    found = verdicts(kit, envelope)
    assert codes(found["purpose"]) == ["PURPOSE_NOT_PERMITTED"]
    assert found["hospital"].verdict == "yes"


def test_the_count_of_patients_with_every_consent_decides(tmp_path: Path) -> None:
    # Opt-out: one objection to either of the two keeps a patient out.
    kit = StationKit.make(tmp_path, {"data.consent_purposes": BOTH, "data.minimum_patients": 12})
    envelope = kit.order()
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert verdicts(kit, envelope)["data"].verdict == "yes"
    kit.intake.consent(
        purpose="research-third-parties", **{f"p{number}": "objection" for number in LAID[:-11]}
    )
    kit.catalogue.sync()
    data = verdicts(kit, envelope)["data"]
    assert codes(data) == ["DATA_TOO_FEW_PATIENTS"]
    assert data.reasons[0].detail == "11 are left, the policy asks for 12"
    assert len(LAID) < len(PATIENTS), "testing patients are not of this train"
    kit.warm.withdraw(kit.gatekeeper.consenting)
    reply, _ = kit.message(envelope)
    assert (reply.status, reply.code) == (Status.REFUSED, "DATA_TOO_FEW_PATIENTS")


@pytest.mark.parametrize(
    ("withdraw", "code"), [(requester, "REQUESTER_REVOKED"), (this_station, "STATION_REVOKED")]
)
def test_who_was_withdrawn_is_said_first(kit: StationKit, withdraw: object, code: str) -> None:
    envelope = kit.ready()
    withdraw(kit)  # type: ignore[operator]
    kit.gatekeeper.policy_set(fresh=True)
    (rule,) = verdicts(kit, envelope).values()
    assert codes(rule) == [code]
    assert rule.reasons[0].detail in {"the key was stolen", "this station"}
    assert STATION not in rule.reasons[0].detail


def test_a_cohort_that_cannot_be_defined_is_said(tmp_path: Path) -> None:
    """Board and train agree on a field that the minimal-dataset profile does not have: no other rule says so."""
    asking = MANIFEST.replace(b"clinical_fields: [pneumonia]", b"clinical_fields: [pneumonia, shoe_size]")
    granted = {"manifest_digest": digest_of(asking), "data.clinical_fields": ["pneumonia", "shoe_size"]}
    kit = StationKit.make(tmp_path, granted)
    kit.shelf.put(asking)
    envelope = kit.order(manifest_digest=digest_of(asking))
    reply = kit.prepare(envelope)
    found = verdicts(kit, envelope)
    assert codes(found["cohort"]) == [reply.code] == ["DATA_FIELDS"]
    assert {rule.rule for rule in found.values() if rule.verdict == "no"} == {"cohort"}
