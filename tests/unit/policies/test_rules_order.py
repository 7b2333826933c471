"""Does an order stay within its policy and its train: every way out of it, and the signature before anything is read."""

from typing import Any

import pytest
from admission_facts import manifest, order, policy, policy_bytes
from board_kit import NOW, BoardKit
from hypothesis import given
from hypothesis import strategies as st
from map_documents import map_manifest
from station_kit import IMAGE

from policies.documents import canonical_json, digest_of
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import Policy
from policies.refusals import Permitted, RefusalCode, Refused
from policies.rules.order_rules import manifest_reasons, order_reasons, verified_order
from policies.signing import add_signature, sign_envelope

DIGEST = digest_of(policy_bytes())
OTHER = "sha256:" + "f" * 64


def codes(asked: RunOrder, rules: Policy | None = None, **changes: Any) -> list[str]:
    found = order_reasons(asked, rules or policy(), changes.get("digest", DIGEST), changes.get("now", NOW))
    return [reason.code.value for reason in found]


def test_an_order_within_its_policy_has_no_reasons() -> None:
    assert codes(order()) == []
    assert manifest_reasons(order(), manifest(), policy()) == []


BEYOND = [
    (order(policy_id="other"), "POLICY_DIGEST"),
    (order(policy_version=2), "POLICY_DIGEST"),
    (order(OTHER), "POLICY_DIGEST"),
    (order(manifest_digest=OTHER), "MANIFEST_DIGEST"),
    (order(image_config_digest=OTHER), "IMAGE_DIGEST"),
    (order(issued="2026-11-22T12:00:01Z"), "ORDER_NOT_YET_VALID"),
    (order(expires="2026-11-22T12:00:00Z"), "ORDER_EXPIRED"),
    (order(expires="2027-11-22T12:00:00Z"), "ORDER_BEYOND_POLICY"),
    (order(rounds=21), "ORDER_BEYOND_POLICY"),
    (order(stages=["evaluate"]), "ORDER_KIND"),
    (order(stages=["analyse"], initial_weights=None), "ORDER_KIND"),
    (order(strategy={"name": "none", "parameters": {}}), "ORDER_BEYOND_POLICY"),
    (order(strategy={"name": "FedAvg", "parameters": {"rate": 2.0}}), "ORDER_BEYOND_POLICY"),
    (order(minimum_stations=2), "ORDER_BEYOND_POLICY"),
    (order(hyperparameters={"other": 1.0}), "ORDER_CONFIG"),
    (order(hyperparameters={"rate": 5.1}), "ORDER_CONFIG"),
    (order(hyperparameters={"rate": -0.1}), "ORDER_CONFIG"),
    (order(hyperparameters={"rate": True}), "ORDER_CONFIG"),
]


@pytest.mark.parametrize(("asked", "code"), BEYOND, ids=[f"{code}-{i}" for i, (_, code) in enumerate(BEYOND)])
def test_each_way_out_of_the_policy(asked: RunOrder, code: str) -> None:
    assert codes(asked) == [code]


def test_more_releases_than_the_policy_grants() -> None:
    rules = policy({"runs.releases": 39})
    assert codes(order(rounds=20), rules) == ["ORDER_BEYOND_POLICY"]
    assert codes(order(rounds=19), rules) == []


def test_the_edges_that_are_still_inside() -> None:
    assert codes(order(rounds=20)) == []
    assert codes(order(stages=["train"])) == []
    assert codes(order(hyperparameters={})) == []
    assert codes(order(hyperparameters={"rate": 5})) == []
    assert codes(order(issued="2026-11-22T12:00:00Z")) == []
    assert codes(order(expires="2026-11-22T12:00:01Z")) == []


def test_every_reason_is_told_at_once() -> None:
    asked = order(OTHER, rounds=21, image_config_digest=OTHER, hyperparameters={"other": 1.0})
    assert codes(asked) == ["POLICY_DIGEST", "IMAGE_DIGEST", "ORDER_BEYOND_POLICY", "ORDER_CONFIG"]


TRAINS: list[tuple[RunOrder, dict[str, object], dict[str, object], str]] = [
    (order(), {"images": []}, {}, "IMAGE_DIGEST"),
    (order(), {"images": [{"variant": "cpu", "config_digest": OTHER}]}, {}, "IMAGE_DIGEST"),
    (order(), {"data.modalities": ["DX", "CR"]}, {}, "DATA_MODALITY"),
    (order(), {"data.clinical_fields": ["pneumonia", "sex"]}, {}, "DATA_FIELDS"),
    (order(), {"data.label": "sex"}, {}, "DATA_FIELDS"),
    (order(), {"data.masks": ["lung"]}, {"data.masks": ["lesion"]}, "DATA_FIELDS"),
    (order(), {"data.representation": "dicom"}, {}, "DATA_FIELDS"),
    (order(), {"resources.memory_mib": 4097}, {}, "HOSPITAL_RESOURCES"),
    (order(), {"resources.cpus": 2.5}, {}, "HOSPITAL_RESOURCES"),
    (order(), {"hyperparameters": {}}, {}, "ORDER_CONFIG"),
    (order(), {"hyperparameters.rate": {"type": "float", "minimum": 2.0, "maximum": 3.0, "default": 2.0}}, {},
     "ORDER_CONFIG"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "train", "rules", "code"), TRAINS, ids=[f"{row[3]}-{i}" for i, row in enumerate(TRAINS)]
)
def test_each_way_in_which_a_train_leaves_its_policy(
    asked: RunOrder, train: dict[str, object], rules: dict[str, object], code: str
) -> None:
    assert [reason.code.value for reason in manifest_reasons(asked, manifest(train), policy(rules))] == [code]


@pytest.mark.parametrize(("rounds", "said"), [(1, []), (2, ["ORDER_BEYOND_POLICY"])])
def test_a_map_train_has_one_round(rounds: int, said: list[str]) -> None:
    train = map_manifest({"images": [{"variant": "cpu", "config_digest": order().image_config_digest}]})
    found = [reason.code.value for reason in manifest_reasons(order(rounds=rounds), train, policy())]
    assert [code for code in found if code == "ORDER_BEYOND_POLICY"] == said


def test_a_train_of_another_kind_than_its_policy() -> None:
    train = manifest({"kind": "evaluation", "outputs": {"metrics": []}})
    assert [reason.code for reason in manifest_reasons(order(), train, policy())] == [
        RefusalCode.MANIFEST_INVALID
    ]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> BoardKit:
    return BoardKit.found(tmp_path_factory.mktemp("board"))


def rules_of(board: BoardKit) -> Policy:
    return policy({"requester.key": board.keys["requester"].public_hex})


def refused(envelope: bytes, board: BoardKit) -> str:
    result = verified_order(envelope, rules_of(board))
    assert isinstance(result, Refused)
    return result.code.value


def test_only_the_requesters_signature_counts(board: BoardKit) -> None:
    payload = canonical_json(order())
    mine = sign_envelope(payload, PAYLOAD_TYPE, board.keys["requester"])
    theirs = sign_envelope(payload, PAYLOAD_TYPE, board.keys["stranger"])
    assert verified_order(mine, rules_of(board)) == Permitted(order())
    assert verified_order(add_signature(mine, board.keys["stranger"]), rules_of(board)) == Permitted(order())
    assert verified_order(add_signature(theirs, board.keys["requester"]), rules_of(board)) == Permitted(
        order()
    )
    assert refused(theirs, board) == "ORDER_SIGNATURE"
    assert refused(sign_envelope(payload, PAYLOAD_TYPE, board.keys["alice"]), board) == "ORDER_SIGNATURE"
    other_type = sign_envelope(payload, "application/vnd.pht.policy+yaml", board.keys["requester"])
    assert refused(other_type, board) == "ORDER_SIGNATURE"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"schema_version": 1}', canonical_json(order())[:-1],
     canonical_json({**order().model_dump(mode="json"), "extra": 1}),
     canonical_json(order()).replace(b'"rate":1.0', b'"rate":NaN'),
     canonical_json(order()).replace(b'"rate":1.0', b'"rate":1e999'),
     canonical_json(order()).replace(b'"rounds":2', b'"rounds":2,"rounds":2'),
     canonical_json(order()).replace(b'"rounds":2', b'"rounds":"2"'),
     canonical_json(order()).replace(b'"rounds":2', b'"rounds":2.0')],
)  # fmt: skip
def test_signed_nonsense_is_no_order(board: BoardKit, payload: bytes) -> None:
    assert refused(sign_envelope(payload, PAYLOAD_TYPE, board.keys["requester"]), board) == "ORDER_INVALID"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_envelope_are_refused(data: bytes) -> None:
    result = verified_order(data, policy())
    assert isinstance(result, Refused)
    assert result.code is RefusalCode.ORDER_SIGNATURE


@given(place=st.integers(0, 2000), flip=st.integers(1, 255))
def test_one_changed_byte_is_another_order_or_none(place: int, flip: int) -> None:
    board = _BOARDS.setdefault("one", _found())
    envelope = bytearray(sign_envelope(canonical_json(order()), PAYLOAD_TYPE, board.keys["requester"]))
    envelope[place % len(envelope)] ^= flip
    result = verified_order(bytes(envelope), rules_of(board))
    # A flip in the envelope's own white space or padding may leave the same order; never another one.
    assert isinstance(result, Refused) or result.value == order()


_BOARDS: dict[str, BoardKit] = {}


def _found() -> BoardKit:
    import atexit
    import shutil
    import tempfile
    from pathlib import Path

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, True)
    return BoardKit.found(Path(folder))


@given(
    st.dictionaries(
        st.sampled_from(["rate", "other"]), st.floats(-1, 11) | st.integers(-1, 11) | st.booleans()
    )
)
def test_a_hyperparameter_is_inside_both_ranges_or_refused(values: dict[str, float]) -> None:
    asked = order(hyperparameters=values)
    inside = all(
        name == "rate" and not isinstance(value, bool) and 0 <= value <= 5 for name, value in values.items()
    )
    policy_says = codes(asked)
    assert (policy_says == []) is inside
    # The manifest's own range is wider here: what it refuses the policy refuses too.
    if manifest_reasons(asked, manifest(), policy()):
        assert policy_says


def test_the_image_must_be_named_by_both() -> None:
    assert order().image_config_digest == IMAGE
    asked = order(image_config_digest=OTHER)
    assert "IMAGE_DIGEST" in codes(asked)
    assert [reason.code.value for reason in manifest_reasons(asked, manifest(), policy())] == ["IMAGE_DIGEST"]
