"""Attack: the service that owns the cohorts puts a link, or another folder, where a checked one was, just before the engine mounts it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue
from sandbox_kit import Station

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine.api import Engine
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox

pytestmark = pytest.mark.docker


class AtTheLastMoment(Engine):
    """The real engine, reached a moment after something else has happened."""

    def __init__(self, socket_path: Path, happens: Callable[[], None]) -> None:
        super().__init__(socket_path)
        self.happens = happens

    def create(self, body: Mapping[str, JsonValue], name: str) -> str:
        self.happens()
        return super().create(body, name)


@pytest.mark.parametrize("which", ["cohort_dir", "control_dir"])
@pytest.mark.parametrize("how", ["link", "parent", "moved"])
def test_what_is_mounted_is_what_was_checked(station: Station, tmp_path: Path, which: str, how: str) -> None:
    spec = station.spec()
    folder = Path(getattr(spec, which))
    if how == "parent":
        # A folder of its own below a folder of its own: the link replaces the one between.
        folder = folder.parent / f"{spec.run_id}-between" / "inner"
        folder.mkdir(parents=True)
        spec = spec.model_copy(update={which: str(folder)})
    outside = tmp_path / "outside" / folder.name
    outside.mkdir(parents=True)
    (outside / "train.sock").write_text("")

    def swap() -> None:
        if how == "moved":
            folder.rename(folder.with_name("elsewhere"))
            folder.symlink_to(folder.with_name("elsewhere"))
        elif how == "link":
            shutil.rmtree(folder)
            folder.symlink_to(outside)
        else:
            shutil.rmtree(folder.parent)
            folder.parent.symlink_to(outside.parent)

    launcher = LauncherCore(station.home, station.settings)
    launcher._engine = AtTheLastMoment(station.settings.engine_socket, swap)
    try:
        with pytest.raises(RefusedError) as caught:
            TrainSandbox(launcher, start_timeout_s=180).start(spec)
        assert caught.value.code == RefusalCode.ENGINE_UNFIT
        assert "another place" in caught.value.message
        assert station.launcher.status(spec.run_id).state == "absent"
    finally:
        for left in (folder, folder.parent):
            if left.is_symlink():
                left.unlink()
        shutil.rmtree(folder.with_name("elsewhere"), ignore_errors=True)
