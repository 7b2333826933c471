"""Worker processes: a file may kill one, hang one, or come while one is killed; the batch goes on."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from intake_kit import CANARIES, folder_of, image, live_instances

from station.intake import spool
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.intake.sources.folder import stage_folder

DEADLINE_S = 180.0
HANGS_S = 5
"""After this long a file counts as hanging: any other takes milliseconds, on a disk that makes its writers wait a second or two."""
AHEAD = 66
"""How far two workers may be ahead of what is recorded, and a little more."""


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


def workers() -> list[int]:
    """The workers of this process's foreman: its children's children."""
    return [child for foreman in children(os.getpid()) for child in children(foreman) if is_worker(child)]


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"station.intake.workers.foreman" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Killer:
    """Kills whatever worker waits on a pipe, until told to stop."""

    def __init__(self, wanted: Callable[[], list[int]]) -> None:
        self.killed: list[int] = []
        self._wanted = wanted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for pid in self._wanted():
                if pid not in self.killed:
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)


def waiting_in_open(pids: list[int]) -> list[int]:
    """Those that hang in opening a pipe."""
    found = []
    for pid in pids:
        try:
            if (
                b"fifo" in Path(f"/proc/{pid}/wchan").read_bytes()
                or "257 " in Path(f"/proc/{pid}/syscall").read_text()[:4]
            ):
                found.append(pid)
        except OSError:
            continue
    return found


def staged_with_a_pipe(paths: IntakePaths, tmp_path: Path, position: int, count: int) -> str:
    """A batch in which one file hangs whoever opens it."""
    batch = stage_folder(paths.spool, folder_of(tmp_path, *(image(number) for number in range(count))), "cxr")
    trap = paths.spool / batch.name / f"{position:07d}"
    trap.unlink()
    os.mkfifo(trap)
    return batch.name


def processed(intake: Intake, name: str) -> tuple[int, dict[str, int]]:
    assert name in intake.recover()
    report = intake.process_batch(name)
    return report.accepted, report.quarantined


@pytest.mark.parametrize("size", [1, 2])
def test_a_file_that_hangs_its_worker_is_quarantined_and_the_batch_goes_on(
    paths: IntakePaths, tmp_path: Path, size: int
) -> None:
    name = staged_with_a_pipe(paths, tmp_path, position=2, count=12)
    with Intake(paths, IntakeSettings(workers=size, file_timeout_s=HANGS_S)) as intake:
        assert processed(intake, name) == (11, {"processing-timeout": 1})
    assert len(live_instances(paths)) == 11
    assert [path.parent.name for path in paths.quarantine.rglob("*-0000002")] == ["processing-timeout"]
    assert spool.batches(paths.spool) == []


@pytest.mark.parametrize("size", [1, 2])
def test_a_file_that_kills_its_worker_twice_is_quarantined_and_the_batch_goes_on(
    paths: IntakePaths, tmp_path: Path, size: int
) -> None:
    name = staged_with_a_pipe(paths, tmp_path, position=2, count=12)
    with (
        Intake(paths, IntakeSettings(workers=size)) as intake,
        Killer(lambda: waiting_in_open(workers())) as killer,
    ):
        assert processed(intake, name) == (11, {"processing-crashed": 1})
        assert len(killer.killed) == 2
    assert len(live_instances(paths)) == 11


def test_workers_that_are_killed_at_any_moment_lose_nothing(paths: IntakePaths, tmp_path: Path) -> None:
    source = folder_of(tmp_path, *(image(number, study=1000 + number) for number in range(140)))
    not_before, killed = 5, 0

    def kill_some(now: int, _total: int) -> None:
        nonlocal not_before, killed
        if now >= not_before:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
                killed += 1
            # One that is killed twice at the same file gives it up: until the next kill all that they were at is recorded.
            not_before = now + AHEAD

    with Intake(paths, IntakeSettings(workers=2)) as intake:
        report = intake.import_folder(source, "cxr", kill_some)
    assert killed >= 4
    assert (report.accepted, report.quarantined) == (140, {})
    assert len(live_instances(paths)) == 140


def test_results_are_recorded_in_the_files_own_order(paths: IntakePaths, tmp_path: Path) -> None:
    # The same instance with other pixels: the first in the folder is the one that counts, whoever is faster.
    files = [image(1, PixelData=bytes([number]) * 12) for number in range(16)]
    with Intake(paths, IntakeSettings(workers=2)) as intake:
        report = intake.import_folder(folder_of(tmp_path, files[0] + b"", *files[1:]), "cxr")
        assert (report.accepted, report.quarantined) == (1, {"instance-conflict": 15})
    (kept,) = live_instances(paths).values()
    assert bytes(12) in (paths.handover / "instances" / kept.file[7:9] / f"{kept.file[7:]}.dcm").read_bytes()


@pytest.fixture
def busy(paths: IntakePaths, tmp_path: Path) -> Iterator[int]:
    """A worker that is at a file."""
    name = staged_with_a_pipe(paths, tmp_path, position=0, count=2)
    with Intake(paths, IntakeSettings(workers=1, file_timeout_s=600)) as intake:
        thread = threading.Thread(target=processed, args=(intake, name))
        thread.start()
        deadline = time.monotonic() + DEADLINE_S
        while not (found := waiting_in_open(workers())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield found[0]
        with Killer(lambda: waiting_in_open(workers())):
            thread.join()


def test_the_key_is_not_where_others_look(busy: int, paths: IntakePaths) -> None:
    import json

    secret = json.loads(paths.pseudonym_key.read_bytes())["secret"].encode()
    for pid in (busy, *children(os.getpid())):
        for place in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{place}").read_bytes()
            except PermissionError:
                continue
            assert secret not in text
            assert str(paths.home).encode() not in text
    assert not [entry for entry in Path(f"/proc/{busy}/fd").iterdir() if "pseudonym" in str(entry.readlink())]


def test_a_worker_has_limits(busy: int) -> None:
    limits = Path(f"/proc/{busy}/limits").read_text()
    wanted = {"Max core file size": "0", "Max address space": str(4096 << 20), "Max open files": "256"}
    for name, value in wanted.items():
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[0] == value
    (cpu,) = [line for line in limits.splitlines() if line.startswith("Max cpu time")]
    assert "unlimited" not in cpu.split()[3]
    assert "NoNewPrivs:\t1" in Path(f"/proc/{busy}/status").read_text()


def test_nothing_of_a_file_reaches_the_log(
    paths: IntakePaths, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    name = staged_with_a_pipe(paths, tmp_path, position=1, count=4)
    with Intake(paths, IntakeSettings(workers=1, file_timeout_s=HANGS_S)) as intake:
        processed(intake, name)
    said = caplog.text + "".join(capfd.readouterr())
    assert "intake-worker-died" in said
    assert not [word for word in (*CANARIES, "1.2.826", str(paths.home)) if word in said]
