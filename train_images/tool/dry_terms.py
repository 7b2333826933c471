"""The policy of a dry run: the one that is given, or the board's own draft for this train.

The draft is what `pht-board draft` would begin with, but for patients: so many as the phantoms have to spare; and for
hyperparameters: whatever train.yaml allows may be tried. Nobody has signed it, and nothing but a dry run may go by it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import yaml

from policies.board.documents.documents_in import read_file, read_train
from policies.board.documents.drafting import DraftOptions, draft_policy
from policies.documents import load_yaml
from policies.errors import RefusedError
from policies.manifest import TrainKind
from policies.policy import Policy
from policies.refusals import RefusalCode
from policies.wire.arrays import TensorShape
from train_images.tool.folders import PackedTrain

MINIMUM_PATIENTS: Final = 10
_SPARE: Final = 1.5


def dry_policy(train: PackedTrain, given: Path | None) -> Policy:
    """Return the policy to hold the train to.

    Args:
        train: packed.
        given: a policy file, signed or not.

    Raises:
        DocumentError: the file is no policy.
        RefusedError: it is a policy for other bytes than this train's.
    """
    if given is None:
        return draft_for(train.path)
    policy = load_yaml(Policy, read_file(given), what=given.name)
    if policy.manifest_digest != train.index.manifest.digest:
        raise RefusedError(
            RefusalCode.MANIFEST_DIGEST,
            f"{given.name} permits another train.yaml than this bundle's",
            hint="Pack with the train.yaml that was signed, or have this one signed.",
        )
    if train.index.config.digest not in policy.image_config_digests:
        raise RefusedError(
            RefusalCode.IMAGE_DIGEST,
            f"{given.name} permits another image than this bundle's",
            hint="An image that is built again has another digest: the board signs digests.",
        )
    return policy


def draft_for(packed: Path, weights: Sequence[TensorShape] | None = None) -> Policy:
    """Return the policy that `pht-board draft` would begin with, for made-up patients and any hyperparameters.

    Args:
        packed: a bundle, or a train.yaml that names an image.
        weights: the tensors that training starts from, so that an update fits under the draft's ceiling on bytes.

    Raises:
        DocumentError: the manifest is wrong.
    """
    train = read_train(packed)
    hyperparameters = {
        name: spec.model_dump(mode="json", exclude_none=True)
        for name, spec in train.manifest.hyperparameters.items()
    }
    options = DraftOptions(
        now=datetime.now(UTC) - timedelta(days=1),
        board="dry-run",
        settings={
            "id": "dry-run",
            "data.collections": "[phantoms]",
            "data.minimum_patients": str(MINIMUM_PATIENTS),
            "runs.hyperparameters": str(yaml.safe_dump(hyperparameters)),
        },
        weights=weights,
    )
    return load_yaml(Policy, draft_policy(train, options), what="the draft policy")


def note_on_size(draft: Policy, before: Policy) -> tuple[str, ...]:
    """Say what a board has to be told of an update that its own draft, made without the weights, would keep at the station.

    Args:
        draft: drafted with the weights.
        before: drafted without them.
    """
    ceiling, without = draft.release.maximum_bytes, before.release.maximum_bytes
    if ceiling == without:
        return ()
    words = (
        f"the update needs a release.maximum_bytes of {ceiling}, and a draft without the weights has {without}: give the board the initial "
        "weights, for `pht-board draft --weights`, or that number"
    )
    return (words,)


def patients_for(policy: Policy, asked: int | None) -> int:
    """Return how many patients to make up: enough for the policy's minimum in the splits that the train is given.

    Args:
        policy: of the dry run.
        asked: by the researcher.
    """
    if asked is not None:
        return asked
    share = 0.25 if policy.kind is TrainKind.EVALUATION else 0.75
    smallest_split = policy.release.minimum_patients_per_metric / 0.25
    return max(60, round(_SPARE * max(policy.data.minimum_patients / share, smallest_split)))
