"""The selftest's parts without an engine: its image, its verdicts, its table, its document."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from policies.blobs import BlobFolder
from station.sandbox.spec import ExitClass, TrainFailure, TrainReply
from station.selftest import judging, report
from station.selftest.attacks import ATTACKS
from station.selftest.hostile.lies import LIES
from station.selftest.hostile.probes import PROBES
from station.selftest.image import make_image
from station.selftest.releasing import release_of
from station.selftest.report import Attempt, Report

SCHEMA = Path(report.__file__).with_name("selftest-report.schema.json")
BEFORE = {"garbage-before-hello", "reply-before-request"}


def attempt(how: str, what: str = "EPERM") -> Attempt:
    return Attempt.model_validate({"tried": "x", "how": how, "what": what})


@pytest.mark.parametrize(
    ("hows", "verdict"),
    [
        (["stopped"], "stopped"),
        (["stopped", "skipped"], "stopped"),
        (["stopped", "got"], "NOT STOPPED"),
        (["skipped", "got"], "NOT STOPPED"),
        (["skipped"], "not applicable here"),
        ([], "NOT STOPPED"),
    ],
)
def test_a_verdict_is_what_was_seen(hows: list[str], verdict: str) -> None:
    assert judging.verdict_of([attempt(how) for how in hows])[0] == verdict


def reply(**rows: object) -> TrainReply:
    return TrainReply({}, rows, None, 0, 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        reply(attempts=[], ended="in time"),
        reply(attempts=[{"tried": "x", "how": "stopped", "what": "EPERM"}], ended="did not end in 90 s"),
        reply(attempts=[{"tried": "x", "how": "stopped", "what": "EPERM"}], ended="killed by SIGSEGV"),
        reply(),
        TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"),
        TrainFailure(ExitClass.TIMEOUT),
    ],
)
def test_a_probe_that_tells_nothing_was_not_stopped(answer: TrainReply | TrainFailure) -> None:
    assert judging.verdict_of(judging.of_probe("x", answer, may_be_killed=False))[0] == "NOT STOPPED"


@pytest.mark.parametrize(
    ("outcome", "held"),
    [
        (reply(), False),
        (TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"), False),
        (TrainFailure(ExitClass.PROTOCOL, detail="bad-magic", session_ended=False), False),
        (TrainFailure(ExitClass.DECLARED_ERROR, error_code="X", session_ended=False), False),
        (TrainFailure(ExitClass.PROTOCOL, detail="bad-magic"), True),
        (TrainFailure(ExitClass.TIMEOUT), True),
    ],
)
def test_a_lie_is_stopped_only_where_it_ended_the_session(
    outcome: TrainReply | TrainFailure, held: bool
) -> None:
    (made,) = judging.of_lie("x", outcome)
    assert (made.how == "stopped") is held


def test_every_attack_has_its_probe_or_lie_and_a_name_of_its_own() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS)
    for each in ATTACKS:
        if each.kind == "probe":
            assert each.action in PROBES
        if each.kind == "lie":
            assert each.action in LIES
        if each.kind == "before":
            assert each.action in BEFORE


def test_the_report_has_its_schema() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == Report.model_json_schema()


def test_the_image_is_the_same_on_every_run_and_its_python_starts(tmp_path: Path) -> None:
    one, other = (make_image(BlobFolder(tmp_path / name)) for name in ("one", "other"))
    assert one == other
    root = tmp_path / "root"
    for digest in one.blobs[1:]:
        with tarfile.open(BlobFolder(tmp_path / "one").path(digest)) as tar:
            tar.extractall(root)  # noqa: S202 - made just above
    assert (root / "opt/bait/become-root").stat().st_mode & 0o4000
    if os.geteuid() == 0:
        code = (
            "import pht_runtime.probes, ctypes, json, sys; print(len(pht_runtime.probes.PROBES), sys.prefix)"
        )
        said = subprocess.run(
            ["chroot", root, "/opt/train/bin/python", "-c", code], check=True, capture_output=True, text=True
        )
        assert said.stdout.split() == [str(len(PROBES)), "/opt/train"]


def test_a_weight_that_is_one_would_be_released(tmp_path: Path) -> None:
    """The last reader refuses lies, and not everything."""
    honest = tmp_path / "honest"
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    honest.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\x80\x3f")
    assert release_of(honest, tmp_path) == ""
    honest.write_bytes(honest.read_bytes()[:-4] + b"\0\0\xc0\x7f")
    assert "NOT_FINITE" in release_of(honest, tmp_path)
