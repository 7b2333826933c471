"""Instructions and replies on the wire: what is written is read again; anything else is one kind of error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import WireError
from policies.wire.instructions import (
    MAX_REPLY_BYTES,
    Blob,
    Instruction,
    Kind,
    StationReply,
    Status,
    decode_instruction,
    decode_reply,
    encode,
)

DIGEST = "sha256:" + "a" * 64


def _train(**changes: object) -> Instruction:
    fields: dict[str, object] = {
        "kind": Kind.TRAIN,
        "order_digest": DIGEST,
        "round": 3,
        "config": {"lr": 0.001, "epochs": 2, "augment": True},
        "weights": Blob(digest=DIGEST, size=10),
        "deadline_s": 60,
    }
    return Instruction(**(fields | changes))


def test_an_instruction_survives_the_wire_with_its_types() -> None:
    instruction = _train()
    read = decode_instruction(encode(instruction))
    assert read == instruction
    assert {key: type(value) for key, value in read.config.items()} == {
        "lr": float,
        "epochs": int,
        "augment": bool,
    }


def test_equal_documents_are_equal_bytes() -> None:
    first = _train(config={"a": 1, "b": 2})
    second = _train(config={"b": 2, "a": 1})
    assert encode(first) == encode(second)


def test_a_reply_survives_the_wire() -> None:
    reply = StationReply(
        order_digest=DIGEST,
        kind=Kind.EVALUATE,
        round=2,
        status=Status.RELEASED,
        metrics={"auc": 0.875, "n": 3},
        tables={"histogram": [[1, 2.5], [0, 0]]},
        num_examples=120,
        counts={"patients": 40},
        compute_s=1.5,
        audit_head=DIGEST,
    )
    assert decode_reply(encode(reply)) == reply


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    for decode in (decode_instruction, decode_reply):
        try:
            decode(data)
        except WireError:
            continue


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_json_in_any_field_is_a_message_or_a_wire_error(value: object) -> None:
    for field in ("kind", "round", "config", "weights", "order", "deadline_s", "tables", "metrics", "extra"):
        document = json.loads(encode(_train())) | {field: value}
        try:
            decode_instruction(json.dumps(document).encode())
        except WireError:
            continue


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0),
        ("version", 1000),
        ("version", "2"),
        ("version", True),
        ("kind", "shell"),
        ("order_digest", "sha256:" + "A" * 64),
        ("order", "{}"),
        ("round", 0),
        ("round", 1.0),
        ("round", True),
        ("attempt", 0),
        ("config", {"lr": None}),
        ("config", {"lr": [1]}),
        ("config", {"../x y": 1}),
        ("weights", {"digest": DIGEST, "size": -1}),
        ("weights", {"digest": DIGEST, "size": 1, "path": "x"}),
        ("deadline_s", 0),
        ("command", "id"),
    ],
)
def test_an_instruction_with_one_wrong_field_is_refused(field: str, value: object) -> None:
    document = json.loads(encode(_train())) | {field: value}
    with pytest.raises(WireError):
        decode_instruction(json.dumps(document).encode())


def test_a_key_twice_and_numbers_that_are_none_are_refused() -> None:
    text = encode(_train()).decode()
    with pytest.raises(WireError):
        decode_instruction(text.replace('"round":3', '"round":3,"round":4').encode())
    with pytest.raises(WireError):
        decode_instruction(text.replace("0.001", "NaN").encode())
    with pytest.raises(WireError):
        decode_instruction(text.replace("0.001", "1e999").encode())


def test_what_is_larger_than_a_message_may_be_is_not_parsed() -> None:
    with pytest.raises(WireError, match="over the limit"):
        decode_reply(b" " * (MAX_REPLY_BYTES + 1))
    with pytest.raises(WireError):
        encode(_train(config={f"k{n}": "x" * 4096 for n in range(200)}))


def test_the_error_does_not_repeat_what_the_sender_wrote() -> None:
    secret = "x" * 500  # a long key, as a sender could choose it
    document = json.loads(encode(_train())) | {secret: 1}
    with pytest.raises(WireError) as caught:
        decode_instruction(json.dumps(document).encode())
    assert secret not in caught.value.message


@pytest.mark.parametrize(
    "status", [Status.REFUSED, Status.FAILED, Status.PENDING, Status.STOPPED, Status.WITHHELD]
)
def test_only_a_released_reply_carries_results(status: Status) -> None:
    with pytest.raises(ValueError, match="released"):
        StationReply(
            order_digest=DIGEST, kind=Kind.TRAIN, round=1, status=status, code="X1", metrics={"loss": 1.0}
        )


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.WITHHELD])
def test_a_no_names_its_code(status: Status) -> None:
    with pytest.raises(ValueError, match="code"):
        StationReply(order_digest=DIGEST, kind=Kind.TRAIN, round=1, status=status)


def test_an_order_rides_in_prepare_and_nowhere_else() -> None:
    with pytest.raises(ValueError, match="prepare"):
        Instruction(kind=Kind.PREPARE, order_digest=DIGEST, deadline_s=1)
    with pytest.raises(ValueError, match="prepare"):
        _train(order="{}")


def test_what_an_older_version_has_no_words_for_is_left_out_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("policies.wire.instructions.SINCE", {"config": 2})
    plain, telling = (_train().model_copy(update={"config": config}) for config in ({}, {"rate": 1.0}))
    assert "config" not in json.loads(encode(plain))
    assert "config" in json.loads(encode(plain.model_copy(update={"version": 2})))
    with pytest.raises(WireError, match="has no config"):
        encode(telling)
    assert json.loads(encode(telling.model_copy(update={"version": 2})))["config"] == {"rate": 1.0}
