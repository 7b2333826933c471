"""Attack: JSON that is too deep for its reader, and JSON that is as wide as a head may be."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import MIB, ExitClass, TrainFailure

pytestmark = pytest.mark.docker


def test_deep_json_ends_the_session(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask("deep-json").failure == TrainFailure(ExitClass.PROTOCOL, detail="too-deep")


def test_the_widest_head_costs_a_bounded_memory(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        # It is an answer like any: the guard finds a table in it that nobody declared.
        assert len(str(train.ask("wide-head").reply.rows)) > MIB
