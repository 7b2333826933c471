"""Attack: open files sent along with answers, until the station can open none."""

from pathlib import Path

import pytest
from reply_kit import Liars

pytestmark = pytest.mark.docker


def test_files_that_are_sent_along_are_not_taken(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        for _ in range(20):
            # A hundred each time; the kernel closes what nobody asked for.
            assert train.ask("descriptors").reply
        train.honest()
