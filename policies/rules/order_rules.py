"""Does a run order stay within the policy it names? Pure: documents in, reasons out.

Used by the station before anything runs, by the orchestrator before it queues, and by `pht-train order` before it
signs, so that a researcher hears "no" at the desk rather than from three hospitals.
"""

from datetime import datetime

from policies.documents import load_json
from policies.errors import DocumentError, TrustError
from policies.manifest import TrainKind, TrainManifest
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import Policy
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.rules.gpu_rules import gpu_document_reasons
from policies.rules.strategy_rules import strategy_manifest_reasons, strategy_reasons
from policies.signing import verify_envelope

_STAGES: dict[TrainKind, frozenset[tuple[str, ...]]] = {
    TrainKind.TRAINING: frozenset({("train",), ("train", "evaluate")}),
    TrainKind.EVALUATION: frozenset({("evaluate",)}),
    TrainKind.ANALYSIS: frozenset({("analyse",)}),
}


def verified_order(envelope: bytes, policy: Policy) -> Permitted[RunOrder] | Refused:
    """Read an order that the policy's requester signed.

    Args:
        envelope: DSSE JSON, untrusted.
        policy: the policy in force that the order claims to run under.
    """
    try:
        verified = verify_envelope(envelope, PAYLOAD_TYPE, [policy.requester.key], threshold=1)
    except TrustError:
        return Refused.because(RefusalCode.ORDER_SIGNATURE, "not signed by the key the policy names")
    try:
        return Permitted(load_json(RunOrder, verified.payload, what="run order"))
    except DocumentError as error:
        return Refused.because(RefusalCode.ORDER_INVALID, error.message)


def order_reasons(order: RunOrder, policy: Policy, policy_digest: str, now: datetime) -> list[Reason]:
    """Return every way in which an order leaves its policy; empty when it stays within.

    Args:
        order: verified with `verified_order`.
        policy: the policy in force.
        policy_digest: of the policy file's signed bytes.
        now: the station's clock.
    """
    code = RefusalCode
    longest = len(order.stages) * order.rounds
    checks: list[tuple[bool, RefusalCode, str]] = [
        (
            (order.policy_id, order.policy_version) != (policy.id, policy.version)
            or order.policy_digest != policy_digest,
            code.POLICY_DIGEST,
            "the order was written for other bytes than the policy in force",
        ),
        (order.manifest_digest != policy.manifest_digest, code.MANIFEST_DIGEST, "another train manifest"),
        (
            order.image_config_digest not in policy.image_config_digests,
            code.IMAGE_DIGEST,
            "the image is not one the policy names",
        ),
        (now < order.issued, code.ORDER_NOT_YET_VALID, "issued in the future"),
        (now >= order.expires, code.ORDER_EXPIRED, "past its expiry"),
        (order.expires > policy.valid_until, code.ORDER_BEYOND_POLICY, "expires after the policy"),
        (
            order.rounds > policy.runs.rounds,
            code.ORDER_BEYOND_POLICY,
            f"more than {policy.runs.rounds} rounds",
        ),
        (longest > policy.runs.releases, code.ORDER_BEYOND_POLICY, "more releases than the policy grants"),
        (
            order.stages not in _STAGES[policy.kind],
            code.ORDER_KIND,
            f"stages do not fit a {policy.kind} policy",
        ),
        (
            order.minimum_stations < policy.runs.minimum_stations,
            code.ORDER_BEYOND_POLICY,
            f"fewer than {policy.runs.minimum_stations} stations",
        ),
    ]
    found = [Reason(number, detail) for wrong, number, detail in checks if wrong]
    return found + strategy_reasons(order, policy) + _hyperparameters(order, policy)


def manifest_reasons(order: RunOrder, manifest: TrainManifest, policy: Policy) -> list[Reason]:
    """Return every way in which a train's manifest leaves its policy, or an order its manifest.

    Args:
        order: verified.
        manifest: read from bytes whose digest the policy names.
        policy: the policy in force.
    """
    code = RefusalCode
    found: list[Reason] = []
    if manifest.kind is not policy.kind:
        found.append(Reason(code.MANIFEST_INVALID, f"a {manifest.kind} train under a {policy.kind} policy"))
    if manifest.outputs.rows is not None and order.rounds != 1:
        # Two counts of one order, with a withdrawal in between, would differ by the row of the patient who withdrew.
        found.append(Reason(code.ORDER_BEYOND_POLICY, "patients' rows are counted once: rounds is 1"))
    if order.image_config_digest not in {image.config_digest for image in manifest.images}:
        found.append(Reason(code.IMAGE_DIGEST, "the image is not one the manifest names"))
    if extra := set(manifest.data.modalities) - set(policy.data.modalities):
        found.append(Reason(code.DATA_MODALITY, f"asks for {', '.join(sorted(extra))}"))
    asked = set(manifest.data.clinical_fields) | ({manifest.data.label} if manifest.data.label else set())
    if extra_fields := asked - set(policy.data.clinical_fields):
        found.append(Reason(code.DATA_FIELDS, f"asks for {', '.join(sorted(extra_fields))}"))
    if acquired := set(manifest.data.acquisition_fields) - set(policy.data.acquisition_fields):
        found.append(Reason(code.DATA_FIELDS, f"asks for {', '.join(sorted(acquired))}"))
    if extra_masks := set(manifest.data.masks) - set(policy.data.masks):
        found.append(Reason(code.DATA_FIELDS, f"asks for masks {', '.join(sorted(extra_masks))}"))
    if manifest.data.representation not in policy.data.representations:
        found.append(Reason(code.DATA_FIELDS, f"asks for {manifest.data.representation} files"))
    if (
        manifest.resources.memory_mib > policy.resources.memory_mib
        or manifest.resources.cpus > policy.resources.cpus
    ):
        found.append(Reason(code.HOSPITAL_RESOURCES, "asks for more memory or CPU than the policy grants"))
    if policy.release.membership_limit is not None and not manifest.outputs.membership_scores:
        found.append(Reason(code.RELEASE_UNSCORED, "the train does not declare outputs.membership_scores"))
    found += gpu_document_reasons(order, manifest, policy)
    found += strategy_manifest_reasons(order, manifest)
    for name, value in order.hyperparameters.items():
        spec = manifest.hyperparameters.get(name)
        if spec is None:
            found.append(Reason(code.ORDER_CONFIG, f"the train has no hyperparameter {name}"))
        elif problem := spec.problem_with(value):
            found.append(Reason(code.ORDER_CONFIG, f"{name} {problem} (manifest)"))
    return found


def _hyperparameters(order: RunOrder, policy: Policy) -> list[Reason]:
    found = []
    for name, value in order.hyperparameters.items():
        spec = policy.runs.hyperparameters.get(name)
        if spec is None:
            found.append(Reason(RefusalCode.ORDER_CONFIG, f"the policy grants no hyperparameter {name}"))
        elif problem := spec.problem_with(value):
            found.append(Reason(RefusalCode.ORDER_CONFIG, f"{name} {problem} (policy)"))
    return found
