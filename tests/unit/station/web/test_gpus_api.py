"""`pht-station gpus` against the API it asks, and what the operator reads of GPUs elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_api_kit import served_home
from station_kit import LauncherSimulator

from policies.console import run
from policies.errors import ExitCode, UnavailableError
from station.admission.gpus import LeasableGpus
from station.cli import app
from station.sandbox.gpu import devices
from station.sandbox.gpu.model import GpuReport, GpuStatus
from station.settings import example
from station.settings.gpu import GpuSection
from station.web.api import create_api
from station.web.gpus_api import add_gpu_routes

UUID = "GPU-11111111-1111-1111-1111-111111111111"
OTHER = "GPU-22222222-2222-2222-2222-222222222222"
REPORT = GpuReport(
    driver="570.86.15",
    devices=(
        GpuStatus(uuid=UUID, name="A100", memory_mib=81_920, state="leased", run_id="run-1"),
        GpuStatus(
            uuid=OTHER,
            name="A30",
            memory_mib=24_576,
            state="unclean",
            reason="its memory could not be scrubbed: x",
        ),
    ),
    exceptions=devices.exceptions(),
)


@pytest.fixture
def launcher() -> LauncherSimulator:
    made = LauncherSimulator()
    made.report = REPORT
    return made


@pytest.fixture
def home(launcher: Any) -> Iterator[Path]:
    """A station's folder as far as the command line looks, with its API behind the socket."""
    nobody: Any = None
    api = create_api(nobody, "t" * 64)
    add_gpu_routes(api, launcher)
    with served_home(api, "t" * 64) as folder:
        yield folder


def test_the_command_names_every_device_and_every_exception(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run(app, ["gpus", "--home", str(home)]) == ExitCode.OK
    said = capsys.readouterr().out
    for text in (
        "570.86.15",
        UUID,
        "leased",
        "run-1",
        OTHER,
        "unclean",
        "could not be scrubbed",
        "/dev/nvidiactl",
    ):
        assert text in said
    assert run(app, ["gpus", "--home", str(home), "--json"]) == ExitCode.OK
    assert GpuReport.model_validate(json.loads(capsys.readouterr().out)) == REPORT


def test_a_launcher_that_is_away_is_said(
    home: Path, launcher: LauncherSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.away = True
    assert run(app, ["gpus", "--home", str(home)]) == ExitCode.UNAVAILABLE
    assert "does not answer" in capsys.readouterr().err


def test_admission_asks_the_launcher_now_and_then_and_not_where_nothing_is_offered() -> None:
    asked: list[float] = []
    now = [100.0]

    class Counting(LauncherSimulator):
        def gpus(self) -> GpuReport:
            asked.append(now[0])
            if self.away:
                raise UnavailableError("away")
            return REPORT

    counting: Any = Counting()
    settings = example()
    assert LeasableGpus(settings, counting, clock=lambda: now[0])() == ()
    assert asked == []
    offering = settings.model_copy(update={"gpu": GpuSection(devices=("all",))})
    gpus = LeasableGpus(offering, counting, clock=lambda: now[0])
    assert gpus() == gpus() == (24_576, 81_920)
    assert asked == [100.0]
    now[0] += 15
    counting.away = True
    # What was known is not what is known; and it is asked again at once.
    assert gpus() is None
    counting.away = False
    assert gpus() == (24_576, 81_920)
