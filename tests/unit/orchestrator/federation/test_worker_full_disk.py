"""A disk that is full, for however long, is no fault of an order: the worker waits, keeps its hands on it, and goes on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from federation_samples import DIGEST, manifest, run_order

from orchestrator.federation import worker as worker_module
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, RunProgress, RunState
from orchestrator.federation.server_app import Ending, Task
from orchestrator.federation.tasks import Address
from orchestrator.federation.worker import MAX_RESTARTS, RunWorker, WorkerFiles
from policies.errors import StorageError
from policies.policy import ReleaseRules, TensorRules
from tests.faults.topology import until


class FullDisk(FolderQueue):
    """A queue whose folder takes nothing for the next so many reports."""

    full_for: int = 0

    def report(self, order_digest: str, progress: RunProgress) -> None:
        if self.full_for:
            self.full_for -= 1
            raise StorageError("state.json: the disk is full")
        super().report(order_digest, progress)


class Processes(RunWorker):
    """A worker whose processes end as they are told to; the last of them has finished the order."""

    endings: Iterator[Ending | OSError]
    started = 0

    def _run_process(self, folder: RunFolder, accepted: AcceptedOrder) -> Ending:
        self.started += 1
        ending = next(self.endings, None)
        if isinstance(ending, OSError):
            raise ending
        if ending is None:
            folder.write_progress(folder.read_progress().model_copy(update={"state": RunState.FINISHED}))
            return Ending.FINISHED
        return ending


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    monkeypatch.setattr(worker_module, "_STORAGE_PAUSE_S", 0.001)
    queue = FullDisk(tmp_path / "runs")
    folder = queue.submit(
        AcceptedOrder(
            order_digest=DIGEST,
            envelope="{}",
            order=run_order(),
            manifest=manifest(),
            release=ReleaseRules(tensors=TensorRules(), maximum_bytes=1000),
            nodes={"amstel": 1, "berkel": 2, "dommel": 3},
        )
    )
    Task(1, 2, "token", started=True).write(folder)
    return queue


def carried(queue: FullDisk, tmp_path: Path, endings: list[Ending | OSError]) -> tuple[RunProgress, int]:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    worker = Processes(
        queue, WorkerFiles(tmp_path, tmp_path, tmp_path), Address("localhost", 1, ca), b"secret" * 6
    )
    worker.endings = iter(endings)
    worker.start()
    try:
        over = until(lambda: queue.folder(DIGEST).read_progress().state.is_over, 60)
        assert over, threading.enumerate()
    finally:
        worker.stop()
    return queue.folder(DIGEST).read_progress(), worker.started


def test_a_process_that_ends_on_a_full_disk_is_started_again_as_often_as_it_takes(
    queue: FullDisk, tmp_path: Path
) -> None:
    progress, started = carried(queue, tmp_path, [Ending.STORAGE] * (3 * MAX_RESTARTS))
    assert (progress.state, progress.code, started) == (RunState.FINISHED, "", 3 * MAX_RESTARTS + 1)


def test_a_report_that_finds_no_room_costs_no_order(queue: FullDisk, tmp_path: Path) -> None:
    queue.full_for = 25
    progress, _ = carried(queue, tmp_path, [Ending.STORAGE])
    assert progress.state is RunState.FINISHED


def test_a_process_that_cannot_be_started_for_want_of_room_is_started_later(
    queue: FullDisk, tmp_path: Path
) -> None:
    progress, started = carried(queue, tmp_path, [OSError(28, "no space")] * 12)
    assert (progress.state, started) == (RunState.FINISHED, 13)
