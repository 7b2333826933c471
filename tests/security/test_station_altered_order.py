"""Attack: an order is changed on its way, for another round, station, image, policy or time than was signed or is permitted."""

import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW
from station_kit import StationKit, order_digest, prepare

from policies.documents import format_moment
from policies.wire.instructions import Instruction, Kind

OTHER = "sha256:" + "e" * 64


def test_changed_words_under_the_old_signature(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    document = json.loads(kit.order())
    payload = base64.b64decode(document["payload"]).replace(b'"rounds":2', b'"rounds":9')
    document["payload"] = base64.b64encode(payload).decode()
    assert kit.service.handle(prepare(json.dumps(document).encode()), None)[0].code == "ORDER_SIGNATURE"
    assert kit.sandbox.started == []
    kit.close()


def test_one_orders_envelope_under_anothers_digest(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    mine, other = kit.order(), kit.order()
    asked = Instruction(
        kind=Kind.PREPARE, order_digest=order_digest(mine), order=other.decode(), deadline_s=60
    )
    assert kit.service.handle(asked, None)[0].code == "ORDER_INVALID"
    assert kit.runs.list() == []
    kit.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"stations": ["amstel", "dommel", "eem"]}, "STATION_NOT_REGISTERED"),
        ({"stations": ["berkel", "dommel", "eem"]}, "ORDER_STATION"),
        ({"expires": format_moment(NOW)}, "ORDER_EXPIRED"),
        ({"issued": format_moment(NOW + timedelta(minutes=1))}, "ORDER_NOT_YET_VALID"),
        ({"rounds": 1000}, "ORDER_BEYOND_POLICY"),
        ({"minimum_stations": 1}, "ORDER_BEYOND_POLICY"),
        ({"stages": ["evaluate"]}, "ORDER_KIND"),
        ({"hyperparameters": {"rate": 6.0}}, "ORDER_CONFIG"),
        ({"hyperparameters": {"secret": 1.0}}, "ORDER_CONFIG"),
        ({"policy_version": 2}, "POLICY_MISSING"),
        ({"policy_id": "other"}, "POLICY_MISSING"),
        ({"policy_digest": OTHER}, "POLICY_DIGEST"),
        ({"manifest_digest": OTHER}, "MANIFEST_DIGEST"),
        ({"image_config_digest": OTHER}, "IMAGE_DIGEST"),
    ],
)
def test_what_the_requester_may_not_order_either(
    tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.order(**changes)
    assert kit.prepare(envelope).code == code
    assert kit.message(envelope)[0].status.value == "refused"
    assert kit.sandbox.started == []
    assert list(kit.paths.cohorts.iterdir()) == []
    kit.close()
