"""Attack and accident: the station is killed at the moment of a release (invariant I8).

Nothing may be lost, half-written or released twice: before the commit there was no release, after it there is one
answer, whatever the train says when it is asked again.
"""

import subprocess
import sys
from pathlib import Path

import egress_station
import pytest
from egress_documents import ORDER
from egress_station import Records, guarded

from policies.documents import digest_of_file
from policies.refusals import Permitted
from station.audit import verify
from station.egress.records.ledger import verify_ledger
from station.egress.records.releases import Recorded


def die(folder: Path, moment: str) -> None:
    program = [sys.executable, egress_station.__file__, str(folder), moment]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(program, check=False, cwd=root, env={"PYTHONPATH": f"{root}:{root / 'tests'}"})
    assert ended.returncode == -9


def test_killed_before_the_commit_nothing_was_released(tmp_path: Path) -> None:
    die(tmp_path, "reply")
    records = Records.open(tmp_path)
    assert records.store.find(ORDER, 1, "train") is None
    assert records.ledger.entries() == []
    assert records.store.releases_used("cxr-finding") == 0
    assert len(list((tmp_path / "releases").iterdir())) == 1
    assert records.store.sweep() == 1
    outcome = records.record(guarded(tmp_path))
    assert isinstance(outcome, Recorded)
    assert not outcome.repeated


def test_killed_after_the_commit_the_answer_stands(tmp_path: Path) -> None:
    die(tmp_path, "done")
    records = Records.open(tmp_path)
    assert records.store.sweep() == 0
    stored = records.store.find(ORDER, 1, "train")
    assert stored is not None
    assert stored.arrays is not None
    assert digest_of_file(stored.arrays) == stored.arrays_digest
    outcome = records.record(guarded(tmp_path, loss=99.0), attempt=7)
    assert isinstance(outcome, Recorded)
    assert outcome.repeated
    assert outcome.release.reply == stored.reply
    assert records.store.releases_used("cxr-finding") == 1
    assert isinstance(verify(records.database), Permitted)
    assert isinstance(verify_ledger(records.database), Permitted)


@pytest.mark.parametrize("times", [3])
def test_killed_again_and_again(tmp_path: Path, times: int) -> None:
    for _ in range(times):
        die(tmp_path, "reply")
    die(tmp_path, "done")
    records = Records.open(tmp_path)
    assert len(records.ledger.entries()) == 1
    assert records.store.releases_used("cxr-finding") == 1
