"""The last reader of an answer's arrays: the egress guard's own, with a contract of one weight. Does any array pass it?"""

import struct
from pathlib import Path
from typing import Final

from policies.manifest import TrainKind
from policies.policy import TensorRules
from policies.wire.arrays import TensorShape
from policies.wire.releases import ReleaseTensor, TensorRole
from station.egress.contract import ReleaseContract
from station.egress.training.updates import release_update

_WEIGHT: Final = TensorShape("w", "float32", (1,))
_HEADER: Final = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
_CONTRACT: Final = ReleaseContract(
    kind=TrainKind.TRAINING,
    problems=(),
    tensors=(ReleaseTensor(_WEIGHT, TensorRole.PARAMETER, "float32"),),
    tensor_rules=TensorRules(),
    metrics=(),
    permitted_metrics=frozenset(),
    permitted_tables=frozenset(),
    maximum_bytes=1 << 20,
    minimum_patients=0,
    minimum_patients_per_metric=0,
    minimum_cell_count=0,
    rules_digest="sha256:" + "0" * 64,
)


def release_of(arrays: Path, work: Path) -> str:
    """Return why the guard lets none of it out; empty where it would.

    Args:
        arrays: what the train answered.
        work: a folder for the weights that it started from, and for what the guard would write.
    """
    inbound, out = work / "inbound.safetensors", work / "release.safetensors"
    inbound.write_bytes(struct.pack("<Q", len(_HEADER)) + _HEADER + struct.pack("<f", 0.5))
    try:
        made = release_update(_CONTRACT, arrays, inbound, out)
    finally:
        out.unlink(missing_ok=True)
    if isinstance(made, tuple):
        return "; ".join(f"{reason.code.value}: {reason.detail}" for reason in made)
    return ""
