"""Attack: a million tensors, to make their reader slow and large."""

from pathlib import Path

import pytest
from reply_kit import FLAT_BYTES, Liars, forget_peak, memory_of

from policies.errors import WireError
from policies.wire.arrays import read_layout
from station.sandbox.spec import MIB
from station.selftest.releasing import release_of

pytestmark = pytest.mark.docker


def test_tensors_are_counted_before_they_are_kept(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        reply = train.ask("million-tensors", max_arrays_bytes=128 * MIB).reply
        assert reply.arrays is not None
        before = forget_peak()
        assert release_of(reply.arrays, tmp_path).startswith("RELEASE_")
        assert memory_of("VmHWM") - before < FLAT_BYTES


def test_a_header_within_its_ceiling_has_no_more_tensors_than_are_read(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        reply = train.ask("many-tensors", max_arrays_bytes=128 * MIB).reply
        assert reply.arrays is not None
        before = forget_peak()
        with pytest.raises(WireError, match="more than"):
            read_layout(reply.arrays)
        assert memory_of("VmHWM") - before < FLAT_BYTES
