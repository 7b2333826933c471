"""What a member should look at before deciding: what a policy leaves open, and where policy and train differ. Decides nothing."""

from policies.board.documents.documents_in import Train
from policies.board.documents.placeholders import unfinished
from policies.manifest import TrainManifest
from policies.policy import Policy
from policies.rules.capacity import tensors_released
from policies.wire.arrays import TensorShape
from policies.wire.releases import update_bytes


def code_attention(train: Train) -> list[str]:
    """Say whether nobody can tell which code was built."""
    if train.manifest.source_commit == "unversioned":
        return ["The manifest names no source commit: nobody can tell which code was built."]
    return []


def policy_attention(policy: Policy, data: bytes) -> list[str]:
    """Return what is open or unusual in a policy itself; `data` are its bytes."""
    points = []
    if keys := unfinished(data):
        points.append(f"Not filled in yet, so nobody can sign it: {', '.join(keys)}.")
    if set(policy.requester.key) == {"0"}:
        points.append("requester.key is empty (all zeros): nobody could order a run.")
    if policy.role == "development":
        points.append(
            "A development policy: one signature, and only for collections marked public or synthetic."
        )
    if policy.release.secure_aggregation:
        points.append("Stations refuse secure aggregation in this version (SECURE_AGGREGATION_UNSUPPORTED).")
    if policy.release.timing_quantum_s == 0:
        points.append("timing_quantum_s is 0: how long a train takes can carry data out.")
    return points


def mismatches(policy: Policy, train: Train) -> list[str]:
    """Return where a policy and the train it permits differ."""
    manifest = train.manifest
    asked = {*manifest.data.clinical_fields, *([manifest.data.label] if manifest.data.label else [])}
    outputs = manifest.outputs
    declared = {metric.key for metric in outputs.metrics} | {item.key for item in outputs.aggregates}
    declared |= set(manifest.error_codes)
    granted = {*policy.release.metrics, *policy.release.tables, *policy.release.error_codes}
    checks = [
        (policy.manifest_digest != train.digest, "The policy names another manifest than this train's."),
        (
            not set(policy.image_config_digests) <= set(train.image_digests),
            "The policy names an image that this train does not have.",
        ),
        (policy.kind is not manifest.kind, f"A {manifest.kind} train under a {policy.kind} policy."),
        (
            not set(manifest.data.modalities) <= set(policy.data.modalities),
            "The train asks for more modalities.",
        ),
        (not asked <= set(policy.data.clinical_fields), "The train asks for more clinical fields."),
        (
            not set(manifest.data.acquisition_fields) <= set(policy.data.acquisition_fields),
            "The train asks for more of how images were acquired.",
        ),
        (not set(manifest.data.masks) <= set(policy.data.masks), "The train asks for more masks."),
        (
            manifest.data.representation not in policy.data.representations,
            "The train asks for images in another form.",
        ),
        (
            policy.release.membership_limit is not None and not outputs.membership_scores,
            "The policy bounds membership scores, which the train does not answer: nothing would leave.",
        ),
        (
            policy.release.local_predictions and not outputs.predictions,
            "The policy lets hospitals keep predictions, and the train makes none.",
        ),
        (not granted <= declared, f"Not declared by the train: {', '.join(sorted(granted - declared))}."),
        (not declared <= granted, f"Declared but withheld: {', '.join(sorted(declared - granted))}."),
    ]
    return [text for wrong, text in checks if wrong]


def size_attention(
    policy: Policy, manifest: TrainManifest | None, weights: tuple[TensorShape, ...] | None
) -> list[str]:
    """Say whether a policy's largest release is too small for an update of the weights it starts from."""
    update = update_bytes(tensors_released(policy.release, manifest, weights) or ())
    if update <= policy.release.maximum_bytes:
        return []
    return [
        f"An update holds {update:,} bytes and release.maximum_bytes is {policy.release.maximum_bytes:,}: stations would refuse to train."
    ]
