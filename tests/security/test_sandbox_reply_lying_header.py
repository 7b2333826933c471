"""Attack: arrays whose safetensors header lies about where they are."""

from pathlib import Path

import pytest
from reply_kit import Liars

from policies.errors import WireError
from policies.wire.arrays import read_layout
from station.selftest.releasing import release_of

pytestmark = pytest.mark.docker

LIES = (
    "header-length",
    "header-past-end",
    "header-overlap",
    "header-hole",
    "header-negative",
    "header-shape",
    "header-text",
)


def test_no_lying_header_gets_past_the_guard(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        for lie in LIES:
            # The session does not look inside; the guard does, and leaves nothing behind.
            reply = train.ask(lie).reply
            assert reply.arrays is not None
            assert release_of(reply.arrays, tmp_path).startswith("RELEASE_UNPARSEABLE"), lie
            with pytest.raises(WireError, match=r"^arrays: "):
                read_layout(reply.arrays)
