"""How many bytes a release may have: a draft holds an update of the weights it is given, and says so where it was given none."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tool_kit import MANIFEST, make_bundle

from policies.board.documents.documents_in import Train, read_train, tensors_of
from policies.board.documents.drafting import DraftOptions, draft_policy
from policies.board.reviewing.review import review_policy
from policies.documents import digest_of, load_yaml
from policies.errors import UsageError
from policies.policy import Policy
from policies.wire.arrays import TensorShape

MIB = 1 << 20
UNSIZED = "release.maximum_bytes is not worked out"
LISTED = "tensors: {layout: listed, listed: [{name: w, shape: [512, 2048], dtype: float32}]}"


def train_of(folder: Path, text: str = MANIFEST) -> Train:
    return read_train(make_bundle(folder / "bundle", manifest=text).path)


def weights_of(folder: Path, **tensors: Any) -> tuple[TensorShape, ...] | None:
    save_file(tensors, folder / "weights.safetensors")
    return tensors_of(folder / "weights.safetensors")


def drafted(train: Train, **options: Any) -> tuple[int, str]:
    """The ceiling of a draft, and all of its text."""
    data = draft_policy(train, DraftOptions(now=datetime(2026, 11, 22, tzinfo=UTC), **options))
    return load_yaml(Policy, data, what="draft").release.maximum_bytes, data.decode()


def test_a_draft_holds_an_update_of_the_weights_it_is_given(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, w=np.zeros((512, 2048), np.float32))
    ceiling, text = drafted(train_of(tmp_path), weights=weights)
    # Four MiB of numbers, with the file's header and a message's metrics: whole MiB.
    assert ceiling == 5 * MIB
    assert UNSIZED not in text


def test_counters_that_stay_take_no_room(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, w=np.zeros(4, np.float32), steps=np.zeros(MIB, np.int64))
    assert drafted(train_of(tmp_path), weights=weights)[0] == MIB


def test_without_the_weights_a_draft_says_that_nobody_worked_it_out(tmp_path: Path) -> None:
    ceiling, text = drafted(train_of(tmp_path))
    assert ceiling == MIB
    assert UNSIZED in text.split("\nschema_version")[0]


def test_a_ceiling_that_is_given_stands(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, w=np.zeros((512, 2048), np.float32))
    ceiling, text = drafted(train_of(tmp_path), weights=weights, settings={"release.maximum_bytes": "77"})
    assert ceiling == 77
    assert UNSIZED not in text


def test_tensors_that_a_manifest_lists_say_it_without_weights(tmp_path: Path) -> None:
    train = train_of(tmp_path, MANIFEST.replace("tensors: {layout: same-as-input}", LISTED))
    ceiling, text = drafted(train)
    assert ceiling == 5 * MIB
    assert UNSIZED not in text
    with pytest.raises(UsageError, match="do not hold the tensors"):
        drafted(train, weights=weights_of(tmp_path, other=np.zeros(4, np.float32)))


def test_a_review_with_the_weights_says_that_no_update_would_leave(tmp_path: Path) -> None:
    train, weights = train_of(tmp_path), weights_of(tmp_path, w=np.zeros((512, 2048), np.float32))
    points = []
    for options in ({}, {"weights": weights}):
        data = drafted(train, **options)[1].encode()
        policy = load_yaml(Policy, data, what="draft")
        found = review_policy(policy, data, digest_of(data), train=train, weights=weights, previous=None)
        points.append([point for point in found.attention if "maximum_bytes" in point])
    (said,), nothing = points
    assert "release.maximum_bytes is 1,048,576" in said
    assert nothing == []
