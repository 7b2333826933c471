"""Attack: the orchestrator sends other weights than it may: at the first round, at an evaluation, of another shape, or not those it names."""

from pathlib import Path

import numpy as np
import pytest
from egress_documents import weights
from safetensors.numpy import save
from station_kit import MANIFEST, StationKit

from policies.documents import digest_of
from policies.wire.instructions import Blob, Kind, Status


@pytest.fixture
def kit(tmp_path: Path) -> StationKit:
    return StationKit.make(tmp_path)


def refused(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1, **more: object
) -> str | None:
    before = len(kit.sandbox.asked)
    reply, arrays = kit.message(envelope, kind, round_, **more)
    assert (reply.status, arrays) == (Status.REFUSED, None)
    assert len(kit.sandbox.asked) == before, "the train was not asked"
    return reply.code


def test_the_first_round_starts_from_the_weights_that_were_signed(kit: StationKit) -> None:
    envelope = kit.ready()
    assert refused(kit, envelope, weights=kit.shelf.put(kit.weights(2))) == "ORDER_WEIGHTS"
    assert refused(kit, envelope, weights=None) == "ORDER_WEIGHTS"
    kit.close()


@pytest.mark.parametrize(
    "tensors",
    [
        {"layer.weight": np.zeros((4, 3), np.float32)},
        {**weights(), "more": np.zeros(1, np.float32)},
        {**weights(), "layer.bias": np.zeros(5, np.float32)},
        {**weights(), "layer.bias": np.zeros(4, np.float64)},
        {},
    ],
)
def test_later_rounds_keep_the_layout(kit: StationKit, tensors: dict[str, object]) -> None:
    envelope = kit.ready()
    data = save(tensors)
    assert refused(kit, envelope, round_=2, weights=kit.shelf.put(data)) == "ORDER_WEIGHTS"
    blob = Blob(digest=digest_of(data), size=len(data))
    assert refused(kit, envelope, round_=2, weights=blob, arrays=data) == "ORDER_WEIGHTS"
    kit.close()


def test_bytes_that_are_not_those_named(kit: StationKit) -> None:
    envelope = kit.ready()
    named = kit.shelf.put(kit.weights(2))
    assert refused(kit, envelope, round_=2, weights=named, arrays=kit.weights(3)) == "ORDER_WEIGHTS"
    assert (
        refused(kit, envelope, round_=2, weights=Blob(digest="sha256:" + "d" * 64, size=10))
        == "ORDER_WEIGHTS"
    )
    kit.close()


def test_bytes_that_are_no_weights(kit: StationKit) -> None:
    envelope = kit.ready()
    for data in (b"", b"\x80\x04K\x01.", b"\xff" * 300, kit.weights(2)[:-1], kit.weights(2) + b"x"):
        blob = Blob(digest=digest_of(data), size=len(data))
        assert refused(kit, envelope, round_=2, weights=blob, arrays=data) == "ORDER_WEIGHTS"
    kit.close()


def test_weights_too_large_to_be_these_are_not_even_fetched(kit: StationKit) -> None:
    envelope = kit.ready()
    # Nothing of this digest is there: were it fetched, another code would say so.
    assert (
        refused(kit, envelope, round_=2, weights=Blob(digest="sha256:" + "c" * 64, size=2**40))
        == "ORDER_WEIGHTS"
    )
    kit.close()


def test_an_evaluation_is_of_the_signed_model_in_every_round(tmp_path: Path) -> None:
    manifest = (
        MANIFEST.replace(b"kind: training", b"kind: evaluation")
        .replace(b'  tensors: {layout: same-as-input, buffers: ["norm.*"]}\n', b"")
        .replace(b"    - {key: loss, stage: train, minimum: 0, maximum: 100, split: training}\n", b"")
        .replace(b"split: validation", b"split: testing")
    )
    kit = StationKit.make(
        tmp_path,
        {
            "kind": "evaluation", "manifest_digest": digest_of(manifest), "runs.strategies": ["none"],
            "release.tensors": None, "release.metrics": ["auc"], "data.minimum_patients": 1,
        },
    )  # fmt: skip
    kit.shelf.put(manifest)
    envelope = kit.ready(
        stages=["evaluate"], strategy={"name": "none", "parameters": {}}, manifest_digest=digest_of(manifest)
    )
    assert kit.message(envelope, Kind.EVALUATE)[0].status is Status.RELEASED
    other = kit.shelf.put(kit.weights(2))
    for round_ in (1, 2):
        reply, _ = kit.message(envelope, Kind.EVALUATE, round_, weights=other)
        if round_ == 1:
            assert reply.metrics == {"auc": 0.75}, "the recorded one, of the signed model"
        else:
            assert reply.code == "ORDER_WEIGHTS"
    assert len(kit.sandbox.asked) == 1
    kit.close()
