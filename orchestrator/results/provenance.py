"""The provenance statement of a result: an in-toto Statement v1 that names what made it.

Says what this orchestrator knows; it signs nothing, having no key that anyone should believe. Whoever doubts it
compares the stations' audit heads in it with the stations' own audits.

Source: in-toto Attestation Framework v1.0 (Statement layer), https://github.com/in-toto/attestation.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.federation.orders import AcceptedOrder
from policies.documents import Digest
from policies.rules.capacity import release_bits
from policies.wire.arrays import TensorShape
from policies.wire.releases import release_tensors

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://pht-radiology.example/provenance/run/v1"


def provenance_statement(
    accepted: AcceptedOrder,
    rounds: Sequence[Mapping[str, Any]],
    subjects: Mapping[str, Digest],
    weights: Iterable[TensorShape] = (),
) -> dict[str, Any]:
    """Return the statement.

    Args:
        accepted: the order as it was run.
        rounds: the finished rounds as the run worker wrote them.
        subjects: the result's files by name, with their digests.
        weights: the tensors of the model, of a training run.
    """
    order = accepted.order
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
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
            },
            "rounds": [_round(entry) for entry in rounds],
            "stations": _stations(rounds),
            "capacity_bits": capacity_bits(accepted, rounds, weights),
        },
    }


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
