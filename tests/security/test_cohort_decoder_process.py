"""What native code that a hostile image took over could still do: the decoder's process is confined for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def confined(code: str) -> str:
    script = f"import socket, os\nfrom station.cohorts.decoder_process import confine\nconfine()\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    return done.stderr


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('/etc/hostname')", "OSError: [Errno 24]"),
        ("os.open('/tmp', os.O_RDONLY)", "OSError: [Errno 24]"),
        ("socket.socket()", "OSError: [Errno 24]"),
        ("os.pipe()", "OSError: [Errno 24]"),
        ("bytearray(8 << 30)", "MemoryError"),
    ],
)
def test_it_can_open_nothing_and_take_no_more_memory(code: str, error: str) -> None:
    assert error in confined(code)


def test_an_ordinary_user_can_start_no_process_in_it() -> None:
    become_ordinary = "os.setuid(65534)\n" if os.getuid() == 0 else ""
    assert "BlockingIOError" in confined(become_ordinary + "os.fork()")


def test_nothing_of_the_stations_environment_reaches_it() -> None:
    from cohort_files import encoded, picture, radiograph

    from station.cohorts.decoder import Decoder

    os.environ["PHT_TEST_SECRET"] = "value-of-the-station"
    decoder = Decoder()
    try:
        decoder.decode(encoded(radiograph(picture())))
        process = decoder._process
        assert process is not None
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"PHT_DECODER_ALARM_S" in environment
        assert b"value-of-the-station" not in environment
    finally:
        decoder.close()
        del os.environ["PHT_TEST_SECRET"]
