"""The selftest's own attacks on a GPU, on a driver compiled for the tests: they find what there is to find, and say so where not."""

import json
import os
import subprocess
import sys
from typing import Any

from gpu_kit import LARGE, SMALL, FakeGpus

from station.sandbox.gpu.scrubbing import scrub
from station.selftest import outside
from station.selftest.judging import got, stopped
from station.selftest.report import Attempt

RUN = """
import json, sys
from station.selftest.hostile import gpu
from station.selftest.hostile.attempts import Attempts
notes = []
getattr(gpu, sys.argv[1])(Attempts(notes.append), {})
print(json.dumps(notes))
"""


def attempt(probe: str, uuid: str | None = SMALL) -> dict[str, Any]:
    """Run a probe where one device is visible, or all."""
    environment = os.environ | ({} if uuid is None else {"CUDA_VISIBLE_DEVICES": uuid})
    done = subprocess.run(
        [sys.executable, "-c", RUN, probe], env=environment, capture_output=True, check=True, timeout=120
    )
    (note,) = json.loads(done.stdout)
    assert isinstance(note, dict)
    return note


def test_a_mark_is_found_unless_the_device_was_scrubbed(gpus: FakeGpus) -> None:
    gpus.device(SMALL, 8)
    assert attempt("gpu_mark")["what"] == "8 MiB are marked"
    found = attempt("gpu_residue")
    assert found["how"] == "got"
    assert "of them the mark" in found["what"]
    assert scrub(SMALL) == ""
    found = attempt("gpu_residue")
    assert found["how"] == "stopped"
    assert found["what"].startswith("only zeros")


def test_a_second_device_is_found(gpus: FakeGpus) -> None:
    gpus.device(SMALL, 8)
    gpus.device(LARGE, 8, minor=1)
    assert attempt("gpu_others")["how"] == "stopped"
    assert attempt("gpu_others", None) == {
        "tried": "use a GPU that is not leased to it",
        "how": "got",
        "what": "2 devices are there",
    }


def test_where_nothing_can_be_looked_into_nothing_was_stopped(gpus: FakeGpus) -> None:
    gpus.device(SMALL, 8)
    gpus.fault("cuda", 999)
    for probe in ("gpu_mark", "gpu_residue", "gpu_others"):
        assert attempt(probe)["what"] == "nothing could be looked into: cuInit answers 999"
        assert attempt(probe)["how"] == "got"


def test_two_trains_make_one_verdict() -> None:
    clean = (stopped("residue", "only zeros"),)
    marked = (Attempt(tried="residue", how="got", what="8 MiB are marked"),)
    assert outside.of_gpu("residue", marked, clean) == clean
    for unmarked in (
        (),
        (got("residue", "nothing could be looked into"),),
        (stopped("residue", "no memory"),),
    ):
        (told,) = outside.of_gpu("residue", unmarked, clean)
        assert told.how == "got"
        assert "no mark could be left" in told.what
