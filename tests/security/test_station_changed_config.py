"""Attack: the orchestrator changes the hyperparameters that the requester signed."""

from pathlib import Path
from typing import Any

import pytest
from station_kit import StationKit

from policies.wire.instructions import Status


@pytest.mark.parametrize(
    "config",
    [{}, {"rate": 2.0}, {"rate": 1.0, "more": 1}, {"Rate": 1.0}, {"rate": "1.0"}, {"rate": 1.0000000001}],
)
def test_a_config_that_is_not_the_orders_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    reply, _ = kit.message(envelope, config=config)
    assert (reply.status, reply.code) == (Status.REFUSED, "ORDER_CONFIG")
    assert kit.sandbox.asked == []
    kit.close()


@pytest.mark.parametrize("equal", [1, True])
def test_what_the_train_gets_is_the_orders_own_value(tmp_path: Path, equal: float) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    kit.message(envelope, config={"rate": equal})
    for asked in kit.sandbox.asked:
        assert repr(dict(asked.config)) == repr({"rate": 1.0})
    kit.close()
