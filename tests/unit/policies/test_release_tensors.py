"""Which tensors a release holds, as station and orchestrator both work it out."""

import pytest

from policies.errors import WireError
from policies.outputs import TensorOutputs, TensorSpec
from policies.policy import TensorRules
from policies.wire.arrays import TensorShape
from policies.wire.releases import ReleaseTensor, TensorRole, release_tensors

WEIGHTS = (
    TensorShape("layer.weight", "float32", (2, 2)),
    TensorShape("norm.running_mean", "float32", (2,)),
    TensorShape("norm.num_batches_tracked", "int64", ()),
)
SAME = TensorOutputs(layout="same-as-input", buffers=("*.running_*",))


def by_name(tensors: tuple[ReleaseTensor, ...]) -> dict[str, ReleaseTensor]:
    return {tensor.reply.name: tensor for tensor in tensors}


def test_each_role_has_its_rule() -> None:
    tensors = by_name(release_tensors(SAME, TensorRules(), WEIGHTS))
    assert {name: tensor.role for name, tensor in tensors.items()} == {
        "layer.weight": TensorRole.PARAMETER,
        "norm.running_mean": TensorRole.FLOAT_BUFFER,
        "norm.num_batches_tracked": TensorRole.INTEGER_BUFFER,
    }
    assert tensors["layer.weight"].released == TensorShape("layer.weight", "float32", (2, 2))
    assert tensors["norm.num_batches_tracked"].released is None


def test_rules_release_and_withhold_buffers() -> None:
    rules = TensorRules(float_buffers="withhold", integer_buffers="release", precision="bfloat16")
    tensors = by_name(release_tensors(SAME, rules, WEIGHTS))
    assert tensors["norm.running_mean"].released is None
    assert tensors["layer.weight"].released_dtype == "bfloat16"
    assert tensors["norm.num_batches_tracked"].released_dtype == "int64"


def test_an_integer_called_a_parameter_is_still_a_buffer() -> None:
    tensors = by_name(release_tensors(TensorOutputs(layout="same-as-input"), TensorRules(), WEIGHTS))
    assert tensors["norm.num_batches_tracked"].role is TensorRole.INTEGER_BUFFER
    assert tensors["norm.num_batches_tracked"].released is None


def test_a_listed_layout_takes_a_part_of_the_weights() -> None:
    listed = TensorOutputs(
        layout="listed", listed=(TensorSpec(name="layer.weight", shape=(2, 2), dtype="float32"),)
    )
    assert set(by_name(release_tensors(listed, TensorRules(), WEIGHTS))) == {"layer.weight"}


@pytest.mark.parametrize("change", [{"name": "other"}, {"shape": (4,)}, {"dtype": "float64"}])
def test_a_listed_tensor_that_the_weights_do_not_hold_is_refused(change: dict[str, object]) -> None:
    spec = TensorSpec(name="layer.weight", shape=(2, 2), dtype="float32").model_copy(update=change)
    with pytest.raises(WireError):
        release_tensors(TensorOutputs(layout="listed", listed=(spec,)), TensorRules(), WEIGHTS)
