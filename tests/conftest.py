"""What all tests share: nothing that matters may be skipped where PHT_NO_SKIPS is set (CI)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_kit import FakeGpus, compile_libraries, settled
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, never whether the code is right.
settings.register_profile("pht", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples on every run: a red run says that something changed. `make fuzz` looks for new ones.
settings.register_profile("pht-ci", settings.get_profile("pht"), derandomize=True)
settings.register_profile("pht-fuzz", settings.get_profile("pht"), max_examples=3000)
settings.load_profile(os.environ.get("PHT_HYPOTHESIS", "pht-ci" if os.environ.get("CI") else "pht"))

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("PHT_NO_SKIPS"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and os.environ.get("PHT_NO_SKIPS"):
        terminalreporter.write_line(
            f"{len(_skipped)} tests were skipped where nothing may be: {_skipped}", red=True
        )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared real images; skips with the reason where they are not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared real images (../shared/data) are not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def gpu_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver's two libraries, compiled from tests/fake_gpu."""
    return compile_libraries(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def gpus(
    gpu_libraries: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeGpus]:
    """A machine with that driver, and no GPU yet; every process that is started from here sees it."""
    folder = tmp_path_factory.mktemp("gpus")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    yield FakeGpus.make(folder, gpu_libraries)
    # What is overwritten beside a test must not meet the next one's machine.
    settled()
