"""The selftest's hostile train for tests: its attacks one at a time, under the real launcher or under one whose engine disobeys."""

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from policies.blobs import BlobFolder
from station.sandbox.engine.api import Engine
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.launcher import core
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.launcher.service import local_launcher
from station.sandbox.spec import Launcher, LauncherSettings
from station.selftest.attacks import Attack, attack_named
from station.selftest.ground import Ground, lay_out
from station.selftest.image import make_image
from station.selftest.report import Line
from station.selftest.runner import Place, Selftest

Weaken = Callable[[dict[str, Any]], None]
MARKER = "selftest"


@dataclass
class Attacked:
    """A station's sandbox, the hostile train in its layer store, and the baits."""

    home: Path
    place: Place
    ground: Ground

    def run(self, attack: str | Attack, launcher: Launcher | None = None) -> Line:
        """Run one attack of the table, or one made for a test."""
        place = self.place if launcher is None else replace(self.place, launcher=launcher)
        with Selftest(place, self.ground, self.home) as selftest:
            return selftest.run(1, attack if isinstance(attack, Attack) else attack_named(attack))

    def stopped(self, attack: str, *by: str) -> Line:
        """Run one attack; it must be stopped, and each of these words (or one of two) be seen to have stopped an attempt."""
        line = self.run(attack)
        assert line.verdict == "stopped", line
        seen = [each.what for each in line.attempts if each.how == "stopped"]
        for words in by:
            assert any(word in each for word in words.split("|") for each in seen), (words, line)
        return line


@contextlib.contextmanager
def attacked_station() -> Iterator[Attacked]:
    with tempfile.TemporaryDirectory(prefix="pht-attacked-") as folder:
        home = Path(folder)
        for name in ("cohorts", "control", "layers"):
            (home / "compute" / name).mkdir(parents=True)
        image = make_image(BlobFolder(home / "compute" / "layers"), MARKER)
        settings = LauncherSettings(station="attacked", compute_uid=0)
        launcher = local_launcher(home, settings)
        paths = {
            "engine_socket": str(settings.engine_socket),
            "launcher_socket": str(home / "run" / "launcher.sock"),
        }
        try:
            with lay_out(home / "compute" / "cohorts") as ground:
                place = Place(launcher, home / "compute", image.config_digest, MARKER, settings, None, paths)
                yield Attacked(home, place, ground)
        finally:
            launcher.remove_orphans()
            launcher.remove_image(image.config_digest)


class DisobedientEngine(Engine):
    """An engine that makes something else of a request than it was asked for."""

    def __init__(self, socket: Path, weaken: Weaken) -> None:
        super().__init__(socket)
        self._weaken = weaken

    def create(self, body: Any, name: str) -> str:
        changed = copy.deepcopy(dict(body))
        self._weaken(changed)
        assert changed != body, "the weakened form is what was asked for"
        return super().create(changed, name)


class BlindDialect(DockerDialect):
    """Takes whatever the engine says it made."""

    def differences(self, asked: Any, inspected: Any) -> tuple[str, ...]:
        return ()


def disobeyed(home: Path, settings: LauncherSettings, weaken: Weaken, *, blind: bool) -> LauncherCore:
    """A launcher over an engine that disobeys.

    Args:
        weaken: what the engine makes of a request.
        blind: the launcher does not compare what the engine says of the container.
    """
    launcher = LauncherCore(home, settings)
    launcher._engine = DisobedientEngine(settings.engine_socket, weaken)
    if blind:
        launcher._dialect = BlindDialect  # type: ignore[assignment,method-assign]
    return launcher


@contextlib.contextmanager
def without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out the launcher's look at what the kernel shows."""
    with monkeypatch.context() as patched:
        patched.setattr(core, "confirm", lambda *_arguments, **_named: None)
        yield
