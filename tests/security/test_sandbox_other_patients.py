"""Attack: a map train tries to see another patient, to remember one, to learn who comes when, and to answer more than a row."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from map_documents import row
from map_kit import PATIENTS, MapStation, read, running_map_station

from policies.splits import Split
from station.cohorts.layout import EPOCH_S

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MapStation]:
    with running_map_station(tmp_path_factory.mktemp("mapped")) as made:
        yield made


LOOK = """
import json, os, pathlib
# What blocks or never ends when it is read is left out: devices, and the pipes under /proc/<pid>/fd.
places = [f"/proc/{which}/{name}" for which in ("self", "1") for name in ("mountinfo", "mounts", "environ", "cmdline", "maps")]
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/sys", "/usr", "/opt", "/lib", "/proc", "/dev/pts")]
    places += [os.path.join(folder, name) for name in files if not folder == "/dev"]
words = []
for path in places:
    content = path
    try:
        with open(path, "rb") as file:
            content += " " + file.read(65536).decode("latin-1")
    except OSError:
        pass
    words += [word[:8] for word in content.split("patient")[1:]]
seen = sorted({letter[0] for letter in words if letter and letter[0] in "abcdefgh" and not letter[1:2].isalpha()})
data = json.load(open("/train/data/datalist.json"))
mine = [entry["patient"] for entry in data["training"]]
found = {
    "mine": mine, "seen": seen, "images": os.listdir("/train/data/images"), "labels": data["labels"],
    "lines": len(open("/train/data/clinical.csv").read().splitlines()),
    "described": json.load(open("/train/data/cohort.json"))["counts_rounded"],
    "mounts": pathlib.Path("/proc/self/mountinfo").read_text(),
    "up": os.listdir("/train/data/.."), "escaped": os.path.exists("/train/data/../../data"),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
}
row = {"found": json.dumps(found)}
"""


def test_a_container_sees_its_patient_and_no_other(mapped: MapStation) -> None:
    _, answers = mapped.ask(LOOK)
    found = read(answers)
    assert sorted(one["mine"][0] for one in found) == sorted(PATIENTS)
    for one in found:
        (mine,) = one["mine"]
        assert one["seen"] == [mine.removeprefix("patient")]
        assert one["images"] == [f"case{mine}.nii"]
        assert one["lines"] == 2
        assert one["labels"] == {}
        assert one["described"] == {"training": {"images": 1, "patients": 1}}
        assert sorted(one["up"]) == ["control", "data", "scratch"]
        assert not one["escaped"]
        # Its own: the init, the runtime, the program.
        assert one["processes"] <= 4
        assert not [name for name in PATIENTS if name in one["mounts"]]


REMEMBER = """
import ctypes, json, os, socket, stat, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
MARK = "pht-mark"
left = []
for place in ("/tmp", "/train/scratch", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run", "/train/control", "/train/data", "/dev"):
    try:
        left += [os.path.join(place, name) for name in os.listdir(place) if MARK in name]
    except OSError:
        pass
for kind in ("shm", "sem", "msg"):
    left += [kind] * (len(open(f"/proc/sysvipc/{kind}").read().splitlines()) - 1)
try:
    left += [line for line in open("/proc/net/unix").read().splitlines() if MARK in line]
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect("\\0" + MARK)
    left.append("abstract socket")
except OSError:
    pass
KEYRINGS = {"thread": -1, "process": -2, "session": -3, "user": -4, "user session": -5}
for name, ring in KEYRINGS.items():
    if libc.syscall(250, 10, ring, b"user", MARK.encode(), 0) > 0:  # keyctl(KEYCTL_SEARCH)
        left.append("keyring " + name)
if libc.syscall(249, b"user", MARK.encode(), None, 0) > 0:  # request_key
    left.append("key")
if MARK in open("/proc/self/comm").read() or MARK in open("/proc/sys/kernel/hostname").read():
    left.append("name")

for place in ("/tmp", "/train/scratch", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run", "/train/control", "/train/data", "/dev"):
    try:
        open(os.path.join(place, MARK), "w").write("the patient before")
    except OSError:
        pass
marked = {
    "shm": libc.shmget(0x70687401, 4096, 0o1666) >= 0, "msg": libc.msgget(0x70687401, 0o1666) >= 0,
    "sem": libc.semget(0x70687401, 1, 0o1666) >= 0,
}
for ring in KEYRINGS.values():
    libc.syscall(248, b"user", MARK.encode(), b"x", 1, ring)  # add_key
listening = socket.socket(socket.AF_UNIX)
listening.bind("\\0" + MARK)
listening.listen()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, pass_fds=[listening.fileno()])
for change in (lambda: os.utime("/train/data"), lambda: os.setxattr("/train/data/datalist.json", "user.mark", b"x"),
               lambda: os.chmod("/train/data/datalist.json", 0o666), lambda: socket.sethostname(MARK)):
    try:
        change()
        left.append("changed what is read-only")
    except OSError:
        pass
with open("/train/data/datalist.json") as file:
    file.read()
row = {"found": json.dumps({"left": left, "marked": marked, "scratch": os.path.exists("/train/scratch/pht-mark")})}
"""


def test_nothing_of_a_patient_is_left_for_the_next_or_the_one_beside(mapped: MapStation) -> None:
    _, answers = mapped.ask(REMEMBER)
    found = read(answers)
    assert len(found) == len(PATIENTS)
    assert [one["left"] for one in found] == [[]] * len(PATIENTS)
    # It did try: in its own memory and its own namespace a train may leave what it likes.
    assert all(one["scratch"] and one["marked"]["shm"] for one in found)
    assert not list((mapped.cohort.path.parent / "patients").iterdir())
    assert mapped.launcher.list_runs() == ()


TIMES = """
import json, os
found = {}
for folder, folders, files in os.walk("/train/data"):
    for name in [".", *files]:
        at = os.lstat(os.path.join(folder, name))
        found[os.path.relpath(os.path.join(folder, name), "/train/data")] = [at.st_ino, at.st_nlink, at.st_mtime, at.st_uid, at.st_mode]
row = {"found": json.dumps({"files": found, "mine": json.load(open("/train/data/datalist.json"))["training"][0]["patient"]})}
"""


def test_no_number_or_time_of_a_file_is_that_of_the_cohort(mapped: MapStation) -> None:
    cohort = {path.stat().st_ino for path in mapped.cohort.path.rglob("*")}
    for _ in range(2):
        found = read(mapped.ask(TIMES)[1])
        assert sorted(one["mine"] for one in found) == sorted(PATIENTS)
        for one in found:
            files = one["files"]
            assert not {ino for ino, *_ in files.values()} & cohort, (
                "a link to the cohort has its place there as number"
            )
            assert {when for _, _, when, *_ in files.values()} == {float(EPOCH_S)}
            assert {links for _, links, _, _, mode in files.values() if stat.S_ISREG(mode)} == {1}


ANSWERS = [
    json.dumps({**row(), "patient": "patienta"}),
    json.dumps(row(2.0)),
    json.dumps({**row(), "lung_share": "0.3"}),
    json.dumps({**row(), "sex": "patienta"}),
    json.dumps({**row(), "nodules": [1]}),
    '{"lung_share": NaN, "nodules": 0, "sex": "F"}',
    '{"lung_share": 0.3, "nodules": ' + "9" * 1_000_000 + ', "sex": "F"}',
    '{"lung_share": 0.3, "nodules": 1e999, "sex": "F"}',
]


def test_an_answer_that_is_no_row_is_counted_and_nothing_of_it_is_kept(mapped: MapStation) -> None:
    code = f"""
import json
answers = json.loads({json.dumps(json.dumps(ANSWERS))})
mine = json.load(open("/train/data/datalist.json"))["training"][0]["patient"]
text = answers["abcdefgh".index(mine[-1])]
"""
    # A request has a ceiling too: the million digits are made in the container.
    code = (
        code.replace("9" * 1_000_000, "NINES").replace("text = ", "text = (").rstrip()
        + ').replace("NINES", "9" * 1000000)\n'
    )
    reply, _ = mapped.ask(code)
    ends = reply.tally.outcomes(Split.TRAINING)
    assert ends["answered"] == 0
    assert sum(ends.values()) == len(PATIENTS)
    assert set(ends) <= {"row", "crash", "protocol"}
    exact = reply.tally.exact(mapped.manifest.outputs.aggregates[0], 1)
    assert exact.counts.sum() == 0


SPEND: list[Any] = [
    ("import os; os._exit(7)", "crash"),
    ("raise SystemExit(3)", "crash"),
    ("x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])", "oom"),
    ("text = json.dumps({'error': 'NO_LUNG'})", "NO_LUNG"),
    ("text = json.dumps({'error': 'PATIENTA'})", "crash"),
]


def test_a_container_that_fails_is_counted_by_how_and_the_others_go_on(mapped: MapStation) -> None:
    code = f"""
import json
mine = json.load(open("/train/data/datalist.json"))["training"][0]["patient"]
ways = {[way for way, _ in SPEND]!r}
number = "abcdefgh".index(mine[-1])
row = {row()!r}
if number < len(ways):
    exec(ways[number])
"""
    reply, answers = mapped.ask(code)
    ends = reply.tally.outcomes(Split.TRAINING)
    assert ends["answered"] == len(PATIENTS) - len(SPEND) == len(answers)
    assert ends["NO_LUNG"] == 1
    assert ends["crash"] + ends["oom"] == len(SPEND) - 1
    assert Path(mapped.cohort.path.parent, "patients").is_dir()
