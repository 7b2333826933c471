"""The index of a bundle keeps to its limits; a train without a program has one too."""

import json
from typing import Any

import pytest

from policies.bundle import BundleIndex
from policies.documents import digest_of
from policies.errors import DocumentError
from policies.image_config import config_without_program, diff_ids_of


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"more": 1},
        {"layers": [{"digest": "sha256:" + "a" * 64, "size": -1}]},
        {"layers": [{"digest": "sha256:" + "A" * 64, "size": 1}]},
        {"layers": [{"digest": "sha256:" + "a" * 64, "size": 19 << 30}] * 2},
        {"layers": [{"digest": "sha256:" + "a" * 64, "size": 1}] * 128},
        {"config": {"digest": "sha256:" + "a" * 64, "size": 2 << 20}},
        {"manifest": {"digest": "sha256:" + "a" * 64, "size": 2 << 20}},
    ],
)
def test_an_index_beyond_its_limits_is_refused(change: dict[str, Any]) -> None:
    blob = {"digest": "sha256:" + "a" * 64, "size": 1}
    with pytest.raises(DocumentError):
        BundleIndex.decode(
            json.dumps({"format": 1, "config": blob, "layers": [blob], "manifest": blob} | change).encode()
        )


def test_a_train_without_a_program_has_a_config_without_layers_and_always_the_same_one() -> None:
    config = config_without_program("cohort-statistics", "0.1.0")
    assert config == config_without_program("cohort-statistics", "0.1.0")
    assert config != config_without_program("cohort-statistics", "0.1.1")
    assert diff_ids_of(json.loads(config)) == ()
    blob = {"digest": digest_of(config), "size": len(config)}
    encoded = json.dumps({"format": 1, "config": blob, "layers": [], "manifest": blob}).encode()
    assert BundleIndex.decode(encoded).layers == ()
