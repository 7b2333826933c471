"""Attack and accident: an answer with noise is drawn again and again, until the noise averages out (invariant I8).

Whoever gets two answers to one question, each with fresh noise, knows more than was charged. So everybody is charged before the
draw, a recorded answer is sent again byte for byte, and one that was drawn but not recorded never leaves: the next draw is
charged anew. The station is killed, really, at each step in between.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import privacy_kit
import pytest
from egress_documents import ORDER
from privacy_kit import EVERYBODY, Books, noisy
from safetensors.numpy import load
from station_kit import StationKit, honest

from policies.refusals import Permitted, RefusalCode
from policies.wire.instructions import Kind, Status, decode_reply
from station.audit import verify
from station.egress.privacy.ledger import privacy_spent_in
from station.egress.release import Release, Withheld


def killed(folder: Path, moment: str) -> None:
    """A station's process that dies at that moment of one release."""
    program = [sys.executable, privacy_kit.__file__, str(folder), moment]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        program, check=False, cwd=root, env={"PYTHONPATH": f"{root}:{root / 'tests'}"}, capture_output=True
    )
    assert ended.returncode == -9, ended.stderr.decode()[-2000:]


def spent(books: Books) -> int:
    with books.records.database.read() as session:
        return privacy_spent_in(session, "cxr-finding")


@pytest.mark.parametrize("moment", ["charged", "drawn", "reply"])
def test_killed_before_it_is_recorded_it_is_charged_again_and_leaves_once(
    tmp_path: Path, moment: str
) -> None:
    killed(tmp_path, moment)
    books = Books(tmp_path)
    assert books.records.store.find(ORDER, 1, "train") is None
    assert [draw.patients for draw in books.ledger.draws()] == [len(EVERYBODY)], "charged before it died"
    once = spent(books)
    books.records.store.sweep()
    release = books.answer()
    assert isinstance(release, Release)
    stored = books.record(release).release
    assert spent(books) == 2 * once, "the second draw cost as much as the first"
    assert len(books.ledger.draws()) == 2
    assert [entry.entry.type.value for entry in books.records.ledger.entries()] == ["release"]
    assert stored.arrays is not None
    assert list((tmp_path / "releases").iterdir()) == [stored.arrays], (
        "what was drawn and not recorded is gone"
    )
    assert isinstance(verify(books.records.database), Permitted)
    books.close()


def test_killed_after_it_is_recorded_nothing_is_drawn_again(tmp_path: Path) -> None:
    killed(tmp_path, "done")
    books = Books(tmp_path)
    stored = books.records.store.find(ORDER, 1, "train")
    assert stored is not None
    assert stored.arrays is not None
    once, sent = spent(books), stored.arrays.read_bytes()
    again = books.answer()
    assert isinstance(again, Withheld), "a second draw for a recorded answer"
    assert again.code is RefusalCode.BUDGET_PRIVACY
    assert (spent(books), len(books.ledger.draws())) == (once, 1)
    assert stored.arrays.read_bytes() == sent
    books.close()


def test_each_draw_is_another_one(tmp_path: Path) -> None:
    """What the attack is after: without the rules above, the mean of many draws is the update."""
    books = Books(tmp_path)
    drawn = []
    for round_ in range(1, 9):
        release = books.answer(round_)
        assert isinstance(release, Release)
        assert release.arrays is not None
        drawn.append(load(release.arrays.path.read_bytes())["layer.weight"])
    assert len({values.tobytes() for values in drawn}) == 8
    assert float(np.std(np.stack(drawn), axis=0).mean()) > 1.0
    assert len(books.ledger.draws()) == 8
    books.close()


def test_asked_again_the_station_sends_the_same_bytes_also_over_a_restart(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, policy=noisy(6))
    envelope = kit.ready()
    first, arrays = kit.message(envelope)
    assert first.status is Status.RELEASED
    for attempt in range(2, 12):
        # Whatever the train would say now.
        kit.sandbox.train = lambda request, cohort: ({"loss": 99.0}, *honest(request, cohort)[1:])
        again, sent = kit.message(envelope, attempt=attempt)
        assert (again.metrics, again.release, sent) == (first.metrics, first.release, arrays)
        if attempt == 6:
            kit.again()
            kit.prepare(envelope)
    assert len(kit.privacy.draws()) == len(kit.sandbox.asked) == 1
    assert [decode_reply(one.reply).metrics for one in kit.releases.list()] == [first.metrics]
    kit.close()


def test_a_station_that_dies_over_and_over_runs_out_of_budget_before_noise_runs_out(tmp_path: Path) -> None:
    """Six queries are granted, and an update with its figure is two: three draws, and then no more."""
    kit = StationKit.make(tmp_path, policy=noisy(6))
    envelope = kit.ready()
    record = kit.releases.record
    outcomes = []
    for attempt in range(1, 6):
        # Drawn, and then the power goes: the transaction of the record never begins.
        def dies(*_anything: object, **_more: object) -> None:
            raise ConnectionAbortedError

        kit.releases.record = dies  # type: ignore[method-assign,assignment]
        kit.sandbox.train = honest
        try:
            reply, arrays = kit.message(envelope, Kind.TRAIN, attempt=attempt)
            outcomes.append(reply.code)
            assert arrays is None
        except ConnectionAbortedError:
            outcomes.append("died")
        kit.releases.record = record  # type: ignore[method-assign]
        kit.again()
        record = kit.releases.record
        kit.prepare(envelope)
    assert outcomes[:3] == ["died"] * 3
    assert set(outcomes[3:]) == {RefusalCode.BUDGET_PRIVACY.value}
    assert len(kit.privacy.draws()) == 3
    assert kit.releases.list() == []
    kit.close()
