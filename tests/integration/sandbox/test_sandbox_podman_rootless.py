"""A Podman that an ordinary user runs is refused, by name, where the kernel lets that user limit nothing."""

from pathlib import Path

import pytest
from engine_kit import Engine, rootless_podman

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.launcher.service import local_launcher

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


@pytest.mark.docker
def test_a_rootless_engine_that_can_limit_nothing_is_refused_by_name(tmp_path: Path) -> None:
    with rootless_podman() as listening:
        launcher = local_launcher(tmp_path, Engine("podman-rootless", listening).settings())
        info = launcher.engine_info()
        assert info.kind == "podman"
        with pytest.raises(RefusedError) as caught:
            launcher.load_image("sha256:" + "0" * 64)
    assert caught.value.code == RefusalCode.ENGINE_UNFIT
    assert "rootless-without-subordinate-users" in info.unfit
    assert "no-memory-controller" in info.unfit
    assert ("rootless-without-cgroup-v2" in info.unfit) is not UNIFIED.exists()
    assert all(name in caught.value.message for name in info.unfit)
