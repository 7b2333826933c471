"""Attack: a train writes anywhere but in its own memory-backed places, or runs what it wrote there."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os, subprocess
written = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    try:
        with open(os.path.join(folder, "pht-was-here"), "w") as file:
            file.write("x")
        written.append(folder)
        os.unlink(os.path.join(folder, "pht-was-here"))
    except OSError:
        pass
changed = []
for name in ("/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/opt/pht/train.json", "/train/data/datalist.json"):
    for attempt in (lambda: open(name, "a").close(), lambda: os.chmod(name, 0o777), lambda: os.unlink(name)):
        try:
            attempt()
            changed.append(name)
        except OSError:
            pass
ran = []
for folder in ("/tmp", "/train/scratch", "/dev/shm"):
    path = folder + "/program"
    with open(path, "w") as file:
        file.write("#!/bin/sh\\nexit 0\\n")
    os.chmod(path, 0o4755)
    try:
        subprocess.run([path], check=True)
        ran.append(folder)
    except OSError:
        pass
found = {"written": sorted(written), "changed": changed, "ran": ran}
"""


def test_a_train_writes_to_its_own_memory_only(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    assert set(found["written"]) == {"/tmp", "/train/scratch", "/dev/shm"}
    assert found["changed"] == []
    assert found["ran"] == []
