"""Attack: a train fills its scratch with bytes, with inodes, and with one endless file."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import MIB

pytestmark = pytest.mark.docker

CODE = """
import os
found = {}
for folder in ("/tmp", "/train/scratch", "/dev/shm"):
    written = 0
    try:
        for number in range(64):
            with open(f"{folder}/{number}", "wb", buffering=0) as file:
                for _ in range(8):
                    written += file.write(b"x" * (1 << 20))
    except OSError:
        pass
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    count = 0
    try:
        if folder != "/dev/shm":
            while count < 200_000:
                os.mkdir(f"{folder}/d{count}")
                count += 1
    except OSError:
        pass
    for number in range(count):
        os.rmdir(f"{folder}/d{number}")
    found[folder] = [written >> 20, count]
"""


def test_scratch_has_a_size_and_a_number_of_files(station: Station) -> None:
    with station.session(memory_bytes=1024 * MIB) as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    for folder in ("/tmp", "/train/scratch", "/dev/shm"):
        assert 30 <= found[folder][0] <= 32, folder
    for folder in ("/tmp", "/train/scratch"):
        assert 60_000 < found[folder][1] <= 65_536, folder


def test_one_file_ends_at_the_size_of_scratch(station: Station) -> None:
    code = """
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("/train/scratch/sparse", "wb") as file:
    try:
        os.truncate(file.fileno(), 1 << 40)
        found = "grown"
    except OSError as error:
        found = error.errno
"""
    with station.session() as session:
        assert station.find(session, code) == 27  # EFBIG
