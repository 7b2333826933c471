"""The provenance statement of a result: an in-toto Statement v1 that names what made it.

Says what this orchestrator knows. Where it has a key of its own (the notary's, which countersigns stations' statements), a DSSE
envelope beside the statement holds the same bytes under that key: it says that this orchestrator wrote them and that they were not
changed since, not that they are true (DESIGN I4). Whoever doubts it compares the stations' audit heads in it with the stations' own
audits.

Source: in-toto Attestation Framework v1.0 (Statement layer), https://github.com/in-toto/attestation.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from orchestrator.federation.orders import AcceptedOrder, RunState
from orchestrator.results.facts import Facts
from policies.documents import Digest
from policies.rules.capacity import release_bits
from policies.wire.arrays import TensorShape
from policies.wire.releases import release_tensors

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
SIGNED_MEANS: Final = (
    "This orchestrator wrote these bytes and they were not changed since (provenance.dsse.json, DSSE). It does not say that they are "
    "true: compare the stations' heads with the stations' own records."
)
UNSIGNED_MEANS: Final = "Unsigned: this orchestrator has no key of its own. Compare the stations' heads with the stations' own records."
PREDICATE_TYPE = "https://pht-radiology.example/provenance/run/v1"


def provenance_statement(
    facts: Facts, subjects: Mapping[str, Digest], notary_key: str | None = None
) -> dict[str, Any]:
    """Return the statement.

    Args:
        facts: what is known of the run.
        subjects: the result's files by name, with their digests.
        notary_key: public key, hex, of the orchestrator's countersignature, where it makes one.
    """
    accepted, order = facts.accepted, facts.accepted.order
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "outcome": outcome(facts),
            "train": {
                "name": accepted.manifest.name,
                "version": accepted.manifest.version,
                "kind": accepted.manifest.kind.value,
                "manifest_digest": order.manifest_digest,
                "image_config_digest": order.image_config_digest,
                "source_commit": accepted.manifest.source_commit,
            },
            "policy": {"id": order.policy_id, "version": order.policy_version, "digest": order.policy_digest},
            "order": {
                "digest": accepted.order_digest,
                "order_id": order.order_id,
                "hyperparameters": dict(order.hyperparameters),
                "strategy": order.strategy.model_dump(mode="json"),
                "initial_weights": None if order.initial_weights is None else order.initial_weights.digest,
                "stations": list(order.stations),
                "minimum_stations": order.minimum_stations,
            },
            "rounds": [_round(entry) for entry in facts.rounds],
            "stations": _stations(facts.rounds),
            "left_out": left_out(facts),
            "station_results": accepted.release.station_results,
            "capacity_bits": capacity_bits(accepted, facts.rounds, facts.tensors),
            "software": dict(facts.software),
            "history": [dict(line) for line in facts.history],
            "signature": {
                "key": notary_key,
                "means": SIGNED_MEANS if notary_key else UNSIGNED_MEANS,
            },
        },
    }


def outcome(facts: Facts) -> dict[str, Any]:
    """Say whether the run did what was ordered, and in words what is lacking."""
    progress, ordered = facts.progress, facts.accepted.order.rounds
    if facts.complete:
        words = f"Complete: all {ordered} rounds that were ordered are finished."
    else:
        words = (
            f"Incomplete: the run {'was stopped' if progress.state is RunState.STOPPED else 'failed'}"
            f"{f' ({progress.code})' if progress.code else ''} after {facts.rounds_done} of {ordered} rounds."
        )
        if facts.weights is not None:
            words += f" The model is the one of round {facts.model_round}."
    return {
        "complete": facts.complete,
        "state": progress.state.value,
        "code": progress.code,
        "rounds": facts.rounds_done,
        "rounds_ordered": ordered,
        "model_of_round": facts.model_round if facts.weights is not None else None,
        "ended": facts.ended,
        "words": words,
    }


def left_out(facts: Facts) -> dict[str, dict[str, list[int]]]:
    """Return the stations that were not in every round: by station and code, in which rounds; 0 stands for the run's preparation."""
    found: dict[str, dict[str, list[int]]] = {}
    for entry in facts.rounds:
        for name, code in (entry.get("missing") or {}).items():
            found.setdefault(name, {}).setdefault(code, []).append(int(entry.get("round") or 0))
    for name, code in facts.progress.missing.items():
        if not found.setdefault(name, {}).setdefault(code, []):
            found[name][code].append(0)
    return dict(sorted(found.items()))


def capacity_bits(
    accepted: AcceptedOrder, rounds: Sequence[Mapping[str, Any]], weights: Iterable[TensorShape]
) -> dict[str, Any]:
    """Bound what the train could carry out of each station: per release, as each station computes it itself, and of this run.

    Args:
        accepted: the order, with the train's manifest and the policy's rules.
        rounds: the finished rounds.
        weights: the tensors of the model, of a training run.
    """
    outputs, rules = accepted.manifest.outputs.tensors, accepted.release.tensors
    tensors = () if outputs is None or rules is None else release_tensors(outputs, rules, weights)
    each = {
        stage: release_bits(accepted.release, accepted.manifest, stage, tensors)
        for stage in accepted.order.stages
    }
    took_part = Counter(name for entry in rounds for name in entry.get("took_part", []))
    round_bits = sum(each.values())
    return {
        "per_release": each,
        "of_this_run": {name: count * round_bits for name, count in sorted(took_part.items())},
    }


def _round(entry: Mapping[str, Any]) -> dict[str, Any]:
    weights = entry.get("weights")
    return {
        "round": entry.get("round"),
        "took_part": entry.get("took_part", []),
        "missing": entry.get("missing", {}),
        "num_examples": entry.get("num_examples", {}),
        "examples_total": entry.get("examples_total", sum((entry.get("num_examples") or {}).values())),
        "weights": weights.get("digest") if isinstance(weights, dict) else None,
    }


def _stations(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per station: the rounds it took part in, and the last heads of its ledger and audit that it showed."""
    found: dict[str, Any] = {}
    for entry in rounds:
        for name in entry.get("took_part", []):
            station = found.setdefault(name, {"rounds": [], "egress_ledger_head": None, "audit_head": None})
            station["rounds"].append(entry.get("round"))
            heads = entry.get("heads", {}).get(name, {})
            station["egress_ledger_head"] = heads.get("egress_ledger") or station["egress_ledger_head"]
            station["audit_head"] = heads.get("audit") or station["audit_head"]
    return found
