"""Attack: a train that sends without end while a large request comes in."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import MIB, ExitClass

pytestmark = pytest.mark.docker


def test_who_speaks_while_it_is_asked_is_asked_nothing_more(liars: Liars, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(64 * MIB))
    with liars.liar(tmp_path) as train:
        assert train.ask("flood").reply
        failure = train.ask("flood", inbound=weights).failure
        assert failure.exit_class is ExitClass.PROTOCOL
        # Seen while the request was sent, or before.
        assert failure.detail in {"unasked", "it sent something that nobody asked for"}
