"""An order is carried once at a time: also where it is resumed while its last life still tidies up behind a slow SuperLink."""

import threading
from pathlib import Path

import pytest
import trustme
from federation_samples import DIGEST
from test_orders import _accepted

from orchestrator.federation.flower import Control
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, RunProgress, RunState
from orchestrator.federation.server_app import Ending, Task
from orchestrator.federation.tasks import Address
from orchestrator.federation.worker import MAX_RESTARTS, RunWorker, WorkerFiles
from policies.errors import UsageError
from tests.faults.topology import until


class SlowSuperLink(Control):
    """A SuperLink whose answer to a stop is long in coming."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def stop_run(self, run_id: int) -> None:
        self.asked.set()
        self.answers.wait(60)

    def close(self) -> None:
        self.answers.set()


class Carriers(RunWorker):
    """A worker that counts who carries an order at once; a process crashes, or ends when it is told to."""

    crashes = False
    at_once = most_at_once = lives = 0

    def __init__(self, queue: FolderQueue, folder: Path) -> None:
        trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
        address = Address("localhost", 1, folder / "ca.pem")
        super().__init__(queue, WorkerFiles(folder, folder, folder), address, b"secret" * 6)
        self._control.close()
        self.link = self._control = SlowSuperLink()
        self.counting = threading.Lock()

    def _carry(self, accepted: AcceptedOrder) -> None:
        with self.counting:
            self.lives += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            super()._carry(accepted)
        finally:
            with self.counting:
                self.at_once -= 1

    def _run_process(self, folder: RunFolder, accepted: AcceptedOrder) -> Ending:
        while not (self.crashes or folder.stop_wanted() or self._stopping.wait(0.01)):
            pass
        return Ending.FAULT if self.crashes else Ending.TOLD_TO_END

    def _claim(self, folder: RunFolder) -> None:
        Task(1, 2, "token", started=True).write(folder)


@pytest.mark.parametrize("end", [RunState.STOPPED, RunState.FAILED])
def test_an_order_that_is_resumed_while_its_last_life_tidies_up_has_one_carrier(
    tmp_path: Path, end: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "orchestrator.federation.worker.MAX_RESTARTS", 0 if end is RunState.FAILED else MAX_RESTARTS
    )
    queue = FolderQueue(tmp_path / "runs")
    folder = queue.submit(_accepted())
    Task(1, 2, "token", started=True).write(folder)
    folder.write_progress(RunProgress(state=RunState.RUNNING))
    worker = Carriers(queue, tmp_path)
    worker.crashes = end is RunState.FAILED
    worker.start()
    try:
        assert until(lambda: worker.lives == 1, 60)
        if end is RunState.STOPPED:
            queue.request_stop(DIGEST)
        assert worker.link.asked.wait(60)
        worker.crashes = False
        # As an operator does who sees that it ended, from another process.
        with pytest.raises(UsageError):
            FolderQueue(tmp_path / "runs").resume(DIGEST)
        worker.link.answers.set()
        assert until(lambda: folder.read_progress().state is end, 60)
        FolderQueue(tmp_path / "runs").resume(DIGEST)
        assert until(lambda: worker.lives == 2 and folder.task.exists(), 60)
    finally:
        worker.stop(60)
    assert (worker.most_at_once, worker.lives) == (1, 2)


def test_an_order_that_is_over_stays_in_hand_until_its_carrier_lets_go(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    queue.submit(_accepted())
    assert queue.next_order() is not None
    queue.report(DIGEST, RunProgress(state=RunState.STOPPED))
    FolderQueue(tmp_path).resume(DIGEST)
    assert queue.next_order() is None
    queue.let_go(DIGEST)
    assert queue.next_order() == _accepted()
