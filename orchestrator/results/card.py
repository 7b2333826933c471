"""The model card of a run: what was made, under which policy, on what, and how well it does, from facts on record alone.

Sections follow Mitchell et al., Model Cards for Model Reporting (FAT* 2019), with the fields that the Coalition for Health AI's
applied model card adds (development, bias by site, conditions of use). A fact that nobody recorded reads `NOT_STATED`: nothing is
made up, and nothing is concluded that a document does not say. Single stations are named where the policy lets their results be
shown; else the card, which is made to be published, has their number.
"""

from collections import Counter
from typing import Any, Final

from orchestrator.results.facts import Facts
from orchestrator.results.provenance import capacity_bits, left_out, outcome
from orchestrator.results.shown import metrics_of
from policies.documents import format_moment
from policies.manifest import TrainKind
from policies.policy import Policy
from policies.withheld import WORDS

NOT_STATED: Final = "not stated"
MODEL_STATUS: Final = {
    "anonymous-claimed": "The board claims that nothing about a person can be had from the model; that is a claim, not a finding of this card.",
    "personal-data": "The model counts as personal data: handle it under the policy's agreement.",
    "undetermined": "Whether the model is personal data is not determined: handle it as if it were.",
}
"""What the policy's legal part says of the resulting model (EDPB opinion 28/2024)."""

Section = dict[str, Any]


def model_card(facts: Facts) -> dict[str, Any]:
    """Return the card of a run: of a model where it trained one, else of a result."""
    return {
        "schema_version": 1,
        "kind": "model-card" if facts.accepted.manifest.kind is TrainKind.TRAINING else "result-card",
        "outcome": outcome(facts),
        "details": _details(facts),
        "use": _use(facts),
        "policy": _policy(facts.policy, facts),
        "data": _data(facts),
        "development": _development(facts),
        "release": _release(facts),
        "performance": _performance(facts),
        "stations": _stations(facts),
        "limitations": _limitations(facts),
        "software": dict(facts.software),
    }


def _details(facts: Facts) -> Section:
    manifest = facts.accepted.manifest
    parameters = [tensor for tensor in facts.tensors if tensor.dtype.startswith(("float", "bfloat"))]
    contact = manifest.contact
    return {
        "name": manifest.name,
        "version": manifest.version,
        "title": manifest.title,
        "kind": manifest.kind.value,
        "made_by": f"{contact.name}, {contact.organisation}",
        "contact": contact.email,
        "licence": manifest.licence,
        "source_commit": NOT_STATED if manifest.source_commit == "unversioned" else manifest.source_commit,
        "network": NOT_STATED
        if manifest.network is None
        else manifest.network.model_dump(mode="json", exclude_none=True),
        "tensors": len(facts.tensors) or NOT_STATED,
        "floating_point_numbers": sum(_elements(tensor.shape) for tensor in parameters) or NOT_STATED,
        "weights_sha256": facts.weights.removeprefix("sha256:") if facts.weights else NOT_STATED,
        "order": facts.accepted.order_digest,
        "manifest": facts.accepted.order.manifest_digest,
        "image": facts.accepted.order.image_config_digest,
        "ended": facts.ended or NOT_STATED,
    }


def _use(facts: Facts) -> Section:
    policy = facts.policy
    if policy is None:
        return dict.fromkeys(
            ("purpose", "statement", "benefit", "intended_users", "out_of_scope"), NOT_STATED
        )
    outside = [] if policy.commercial_use_approved else ["Commercial use: the policy does not approve it."]
    return {
        "purpose": policy.purpose.code.value,
        "statement": policy.purpose.statement,
        "benefit": policy.purpose.benefit,
        "intended_users": f"{policy.requester.organisation} ({policy.requester.requester_class.value}, {policy.requester.country})",
        "out_of_scope": [*outside, "Anything but the purpose above: the policy permits nothing else."],
    }


def _policy(policy: Policy | None, facts: Facts) -> Section:
    order = facts.accepted.order
    named: Section = {"id": order.policy_id, "version": order.policy_version, "digest": order.policy_digest}
    if policy is None:
        return named | dict.fromkeys(
            ("title", "summary_nl", "summary_en", "licence", "radiologist", "legal", "model_status", "elsi"),
            NOT_STATED,
        )
    legal = policy.legal
    return named | {
        "board": policy.board,
        "role": policy.role,
        "title": policy.title,
        "summary_nl": policy.summary.nl,
        "summary_en": policy.summary.en,
        "radiologist": policy.radiologist,
        "valid": f"{format_moment(policy.valid_from)} to {format_moment(policy.valid_until)}",
        "legal": {
            "grounds": f"GDPR {legal.gdpr_article_6}, {legal.gdpr_article_9}; {legal.national_ground}",
            "controllers": list(legal.controllers),
            "dpia": legal.dpia,
            "ethics": legal.ethics,
            "ehds_permit": legal.ehds_permit or NOT_STATED,
            "agreement": f"{legal.agreement.reference}, until {legal.agreement.expires}",
        },
        "model_status": {"status": legal.model_status, "means": MODEL_STATUS[legal.model_status]},
        "elsi": [{"question": item.question, "answer": item.answer} for item in policy.elsi],
    }


def _data(facts: Facts) -> Section:
    needs, policy, shown = facts.accepted.manifest.data, facts.policy, facts.accepted.release.station_results
    last = facts.rounds[-1] if facts.rounds else {}
    examples = dict(last.get("num_examples") or {})
    took_part = {name for entry in facts.rounds for name in entry.get("took_part", ())}
    grant = None if policy is None else policy.data
    return {
        "modalities": [modality.value for modality in needs.modalities],
        "body_part": needs.body_part,
        "profile": needs.profile,
        "clinical_fields": list(needs.clinical_fields),
        "acquisition_fields": [field.value for field in needs.acquisition_fields],
        "label": needs.label or NOT_STATED,
        "masks": list(needs.masks),
        "collections": NOT_STATED if grant is None else list(grant.collections),
        "consent": NOT_STATED
        if grant is None
        else f"{', '.join(grant.consent_purposes)} ({' or '.join(grant.consent_modes)})",
        "minimum_patients_per_station": NOT_STATED if grant is None else grant.minimum_patients,
        "stations": sorted(took_part) if shown else len(took_part),
        "examples": sum(examples.values()) or last.get("examples_total") or NOT_STATED,
        "examples_by_station": examples if shown and examples else NOT_STATED,
        "examples_are": "images that training or the test rests on, counted and rounded by each station itself",
    }


def _development(facts: Facts) -> Section:
    order = facts.accepted.order
    return {
        "strategy": order.strategy.name,
        "strategy_parameters": dict(order.strategy.parameters),
        "stages": list(order.stages),
        "rounds": facts.rounds_done,
        "rounds_ordered": order.rounds,
        "minimum_stations": order.minimum_stations,
        "hyperparameters": dict(order.hyperparameters),
        "initial_weights": order.initial_weights.digest if order.initial_weights else NOT_STATED,
    }


def _release(facts: Facts) -> Section:
    rules, privacy = facts.accepted.release, facts.accepted.release.differential_privacy
    bits = capacity_bits(facts.accepted, facts.rounds, facts.tensors)
    return {
        "clipping_norm": rules.tensors.clipping_norm
        if rules.tensors and rules.tensors.clipping_norm
        else "none",
        "precision": rules.tensors.precision if rules.tensors else "none leave",
        "minimum_patients_per_metric": rules.minimum_patients_per_metric,
        "minimum_cell_count": rules.minimum_cell_count,
        "count_rounding": rules.count_rounding,
        "membership_limit": rules.membership_limit or "none",
        "secure_aggregation": rules.secure_aggregation,
        "human_review": rules.human_review,
        "differential_privacy": "none"
        if privacy is None
        else {
            "noise_multiplier": privacy.noise_multiplier,
            "epsilon_at_most": privacy.epsilon,
            "delta": privacy.delta,
            "unit": "one patient replaced by another, at one station, over all runs of the policy",
        },
        "capacity_bits_per_station": max(bits["of_this_run"].values(), default=0),
        "station_results": rules.station_results,
    }


def _performance(facts: Facts) -> Section:
    shown = facts.accepted.release.station_results
    measured = [
        {
            "stage": stage,
            "metric": key,
            "patients": metric.split.value,
            "minimum": metric.minimum,
            "maximum": metric.maximum,
            "decimals": metric.decimals,
            "stated_by": "the train itself",
        }
        for (stage, key), metric in metrics_of(facts.accepted).items()
    ]
    rounds: list[dict[str, Any]] = [
        {
            "round": entry.get("round"),
            "stations": f"{len(entry.get('took_part', ()))} of {len(facts.accepted.order.stations)}",
            "pooled": entry.get("means") or {},
            "withheld": entry.get("withheld") or {},
            **(
                {"by_station": {stage: entry.get(stage) or {} for stage in facts.accepted.order.stages}}
                if shown
                else {}
            ),
        }
        for entry in facts.rounds
    ]
    return {
        "metrics": measured,
        "pooled_means": "over the stations that released the metric, weighted by their examples",
        "rounds": rounds,
        "withheld_because": {
            code: WORDS[code]
            for code in sorted(
                {c for e in rounds for m in e["withheld"].values() for c in m.values()} & WORDS.keys()
            )
        },
    }


def _stations(facts: Facts) -> Section:
    shown = facts.accepted.release.station_results
    ordered, missing = facts.accepted.order.stations, left_out(facts)
    named: Section = {"ordered": len(ordered), "left_out": {}}
    if shown:
        return named | {"names": list(ordered), "left_out": missing}
    codes = Counter(code for found in missing.values() for code in found)
    return named | {
        "names": NOT_STATED,
        "left_out": {code: f"{_stations_of(count)}" for code, count in sorted(codes.items())},
    }


def _stations_of(count: int) -> str:
    return "1 station" if count == 1 else f"{count} stations"


def _limitations(facts: Facts) -> list[str]:
    rules = facts.accepted.release
    found = [] if facts.complete else [outcome(facts)["words"]]
    if facts.accepted.manifest.outputs.metrics:
        found.append(
            "Metrics are stated by the train; the stations check their range and how many patients they rest on, not that they are right."
        )
    if facts.accepted.manifest.kind is TrainKind.TRAINING:
        found.append(
            "Metrics of training rounds are of patients of the training hospitals; a test on others is not part of this run."
        )
    if missing := left_out(facts):
        found.append(
            f"{_stations_of(len(missing))} of {len(facts.accepted.order.stations)} took no part in some or all rounds."
        )
    if not rules.station_results:
        found.append(
            "How results differ between hospitals is not in this card: the policy shows pooled values."
        )
    if rules.differential_privacy is None:
        found.append(
            "No differential privacy: what the model or the numbers tell of single patients has no proven bound."
        )
    if rules.trust_statement is not None:
        found.append("The orchestrator saw each station's single updates.")
    if facts.policy is None:
        found.append(
            "The policy was not kept with the run: purpose, licence terms and legal part are not stated here."
        )
    return found


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
