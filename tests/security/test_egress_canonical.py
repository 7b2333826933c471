"""Attack: a train says something by how it writes its numbers down. Two answers with equal numbers are released as equal bytes.

Order, spacing, padding and spelling of a safetensors header are free, and so are the signs of zeros, the digits of a metric, the order of
keys and the ways in which JSON spells a number. None of it leaves, whatever the rules.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import COUNTS, Bench, Tensors, head, manifest, policy, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from policies.wire.arrays import TensorShape, read_layout
from policies.wire.arrays_writing import canonical_layout
from station.egress.guard import Guard
from station.egress.release import Release, ReplyStamp, released_reply

RULES = [
    {},
    {"precision": "bfloat16"},
    {"precision": "float16"},
    {"clipping_norm": 0.01},
    {"clipping_norm": 0.01, "precision": "bfloat16", "integer_buffers": "release"},
]
METRICS = [
    {"key": key, "stage": "train", "minimum": -1.0, "maximum": 1.0, "decimals": 3, "split": "training"}
    for key in ("first", "second")
]
TRAIN = manifest(metrics=METRICS)


def written(tensors: Tensors, order: list[str], spaces: str, escaped: bool, gap: int) -> bytes:
    """A safetensors file of the same numbers in another hand: data in another order, the header as JSON permits."""
    entries, position, data = [], 0, b""
    for name in order:
        items = tensors[name].tobytes()
        code = {"f": "F", "i": "I"}[tensors[name].dtype.kind] + str(tensors[name].dtype.itemsize * 8)
        keys = [
            f'"dtype":{spaces}"{code}"',
            f'"shape":{spaces}{json.dumps(list(tensors[name].shape))}',
            f'"data_offsets":{spaces}[{position},{spaces}{position + len(items)}]',
        ]
        body = f",{spaces}".join(reversed(keys) if escaped else keys)
        entries.append(f'"{name}":{spaces}{{{body}}}')
        position += len(items)
        data += items
    header = ("{" + spaces + f",{spaces}".join(entries) + "}" + spaces + " " * gap).encode()
    return len(header).to_bytes(8, "little") + header + data


def release(bench: Bench, rules: dict[str, Any], said: dict[str, Any]) -> tuple[bytes, bytes]:
    """Everything that leaves: the file, and the reply."""
    contract = bench.contract(TRAIN, policy(metrics=["first", "second"], tensors=rules))

    outcome = Guard(contract, COUNTS).check(bench.request(), said, bench.reply)
    assert isinstance(outcome, Release), outcome
    reply = released_reply(outcome, ReplyStamp(1, "c-1", 1.0, None, None))
    return bench.out.read_bytes(), reply.model_dump_json().encode()


@pytest.mark.parametrize("rules", RULES, ids=str)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(sorted(weights())),
    spaces=st.sampled_from(["", " ", "\n\t ", "  \r\n"]),
    escaped=st.booleans(),
    gap=st.integers(0, 40),
    zeros=st.integers(0, 15),
)
def test_equal_numbers_are_equal_bytes(
    tmp_path: Path, rules: dict[str, Any], order: list[str], spaces: str, escaped: bool, gap: int, zeros: int
) -> None:
    inbound = {**weights(), "layer.bias": np.zeros(4, np.float32)}
    bench = Bench(tmp_path, inbound)
    plain = {name: np.asarray(items + (items != 0), items.dtype) for name, items in inbound.items()}
    bench.reply.write_bytes(save(plain))
    expected = release(bench, rules, head(metrics={"first": 0.5, "second": 0.0}))

    signed = np.where((zeros >> np.arange(4)) & 1, np.float32(-0.0), np.float32(0.0)).astype(np.float32)
    bench.reply.write_bytes(written({**plain, "layer.bias": signed}, order, spaces, escaped, gap))
    # The same numbers as rounded, spelt otherwise: another order, a minus zero, whole and not, digits that are not kept.
    metrics = {"second": -0.0 if escaped else 0, "first": 0.5000001 + gap * 1e-7}
    again = release(bench, rules, {"error": None, "metrics": metrics, "type": "reply", "id": gap})
    assert again == expected


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_the_file_is_the_one_in_which_its_numbers_can_be_written(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
    """Data without a hole, in the order of size and name; a header without metadata, its one spelling; aligned items."""
    bench = Bench(tmp_path)
    bench.answer()
    content, _ = release(bench, rules, head(metrics={"first": 0.5, "second": 0.5}))
    layout = read_layout(bench.out)
    assert layout == canonical_layout(reversed(layout.tensors))
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    spelt = json.dumps(header, separators=(",", ":")).encode()
    assert content[8 : 8 + length] == spelt + b" " * (-len(spelt) % 8)
    assert "__metadata__" not in header
    for entry in layout.entries:
        assert entry.offset % np.dtype(_raw(entry.tensor)).itemsize == 0


def _raw(tensor: TensorShape) -> str:
    return {"bfloat16": "u2"}.get(tensor.dtype, tensor.dtype)


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("tiny", [1e-45, -1e-45, 1e-40, -3e-41, -1e-38])
def test_the_smallest_numbers_are_numbers_and_no_signs(
    tmp_path: Path, rules: dict[str, Any], tiny: float
) -> None:
    """Below the normal numbers there are still numbers, which are counted; what rounds to zero is zero, without a sign."""
    inbound = {"layer.weight": np.zeros(64, np.float32)}
    bench = Bench(tmp_path, inbound)
    bench.answer({"layer.weight": np.full(64, tiny, np.float32)})
    content, _ = release(bench, rules, head(metrics={"first": 0.5, "second": 0.5}))
    (entry,) = read_layout(bench.out).entries
    items = np.frombuffer(content[entry.offset :], _raw(entry.tensor))
    bits = items.view(f"u{items.dtype.itemsize}")
    assert len(set(bits.tolist())) == 1
    assert int(bits[0]) != 1 << (8 * items.dtype.itemsize - 1)
