"""Attack: a compressed answer that would unpack to 256 MiB."""

from pathlib import Path

import pytest
from reply_kit import FLAT_BYTES, Liars, forget_peak, memory_of

from station.selftest.releasing import release_of

pytestmark = pytest.mark.docker


def test_what_is_compressed_is_refused_as_the_bytes_it_is(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        reply = train.ask("compression-bomb").reply
        assert reply.arrays is not None
        assert reply.arrays.read_bytes()[:2] == b"\x1f\x8b"
        before = forget_peak()
        assert release_of(reply.arrays, tmp_path).startswith("RELEASE_UNPARSEABLE")
        assert memory_of("VmHWM") - before < FLAT_BYTES
