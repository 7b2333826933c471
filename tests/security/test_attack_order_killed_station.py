"""Compute is killed with SIGKILL around the moment at which an order is counted: it stays counted once, and spent once spent.

Each station dies in a process of its own, in the middle of the real code; the next life looks at what the disk holds.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_kit import BoardKit
from catalogue_log import Intake
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save
from station_kit import MANIFEST, Clock, Shelf, StationKit, instruction, order_digest, settings, weights

from policies.refusals import Permitted, RefusalCode
from policies.signing import load_signer
from policies.trust.repository import BoardRepository
from policies.trust.witness import Witness
from policies.wire.instructions import Kind, Status
from station.audit import verify
from station.egress.records.ledger import verify_ledger

CODE = RefusalCode.BUDGET_RUNS
POLICY = "cxr-classification"


def die(*_anything: Any, **_more: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_count(kit: StationKit, envelope: bytes) -> None:
    """Inside the transaction that counts."""
    append_in = type(kit.audit).append_in

    def last_words(self: Any, session: Any, record: Any) -> Any:
        if record.event.value == "order-admitted":
            die()
        return append_in(self, session, record)

    type(kit.audit).append_in = last_words  # type: ignore[method-assign,assignment]
    kit.prepare(envelope)


def counted(kit: StationKit, envelope: bytes) -> None:
    """The transaction is over, and nothing has come of it yet."""
    kit.service._preparing.begin = die  # type: ignore[method-assign]
    kit.prepare(envelope)


def container_started(kit: StationKit, envelope: bytes) -> None:
    """It runs, and the station has not said that it is ready."""
    start = kit.sandbox.start

    def and_die(spec: Any) -> Any:
        start(spec)
        die()

    kit.sandbox.start = and_die  # type: ignore[method-assign]
    kit.prepare(envelope)


def released(kit: StationKit, envelope: bytes) -> None:
    kit.prepare(envelope)
    assert kit.message(envelope)[0].status is Status.RELEASED
    die()


def finished(kit: StationKit, envelope: bytes) -> None:
    kit.prepare(envelope)
    kit.service.handle(instruction(envelope, Kind.FINISH), None)
    die()


MOMENTS: dict[str, Callable[[StationKit, bytes], None]] = {
    "counted": counted,
    "container-started": container_started,
    "released": released,
}


def killed(folder: Path, moment: str) -> tuple[StationKit, bytes]:
    """A station in its next life, after one that was killed at this moment, and the order it was killed over."""
    kit = StationKit.make(folder, {"runs.runs": 1})
    envelope = kit.order()
    kit.close()
    (folder / "order").write_bytes(envelope)
    (folder / "policy").write_bytes(kit.policy)
    (folder / "handover.key").write_bytes(kit.intake.key.private_bytes_raw())
    # A fork of a process that has no threads: one of this process might never come to its end.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["station_kit"])
    life = context.Process(target=live_and_die, args=(folder, moment))
    life.start()
    life.join(120)
    assert life.exitcode == -signal.SIGKILL
    kit.open()
    kit.again()
    return kit, envelope


def live_and_die(folder: Path, moment: str) -> None:
    """One life of the station on this disk, in a process of its own."""
    keys = {path.stem: load_signer(path) for path in (folder / "keys").glob("*.pem")}
    repository = BoardRepository(folder / "repository")
    plan = repository.root.plan()
    witness = Witness(repository.folder, keys["witness"])
    board = BoardKit(folder, keys, plan.charter, plan, repository, witness)
    key = Ed25519PrivateKey.from_private_bytes((folder / "handover.key").read_bytes())
    shelf = Shelf()
    shelf.put(MANIFEST)
    shelf.put(save(weights()))
    intake = Intake(folder / "home" / "handover", key)
    kit = StationKit(folder, Clock(), board, intake, shelf, settings(), (folder / "policy").read_bytes())
    kit.open()
    {**MOMENTS, "before-the-count": before_the_count, "finished": finished}[moment](
        kit, (folder / "order").read_bytes()
    )


def assert_counted_once(kit: StationKit) -> None:
    assert kit.runs.runs_used(POLICY) == 1
    assert kit.prepare(kit.order()).code == CODE
    assert isinstance(verify(kit.database), Permitted)
    assert isinstance(verify_ledger(kit.database), Permitted)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_order_is_counted_once_whenever_the_station_dies(tmp_path: Path, moment: str) -> None:
    kit, envelope = killed(tmp_path, moment)
    assert_counted_once(kit)
    # The same order goes on where it was: it stands in nobody's way, its own included.
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert kit.message(envelope)[0].status is Status.RELEASED
    assert kit.releases.releases_used(POLICY) == 1
    assert kit.events().count("order-admitted") == 1
    assert_counted_once(kit)
    kit.close()


def test_a_run_that_had_a_container_stays_counted_when_it_is_stopped_later(tmp_path: Path) -> None:
    kit, envelope = killed(tmp_path, "container-started")
    kit.decide(envelope, "stop")
    assert kit.prepare(envelope).code == RefusalCode.RUN_STOPPED
    kit.again()
    assert_counted_once(kit)
    kit.close()


def test_before_the_count_nothing_happened(tmp_path: Path) -> None:
    kit, envelope = killed(tmp_path, "before-the-count")
    assert kit.runs.runs_used(POLICY) == 0
    assert "order-admitted" not in kit.events()
    assert kit.sandbox.started == []
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert_counted_once(kit)
    kit.close()


def test_a_spent_order_stays_spent(tmp_path: Path) -> None:
    kit, envelope = killed(tmp_path, "finished")
    for _ in range(2):
        assert kit.prepare(envelope).code == RefusalCode.ORDER_SPENT
        assert kit.message(envelope)[0].code == RefusalCode.ORDER_SPENT
        kit.again()
    assert_counted_once(kit)
    assert order_digest(envelope) in {run.order_digest for run in kit.runs.list()}
    kit.close()
