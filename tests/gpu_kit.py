"""GPUs for the tests: driver libraries compiled from C, over devices that live in files. The station's own code loads them.

What is faked is the driver and nothing else: discovery asks it through NVIDIA's Python package, scrubbing through ctypes, each in the
process in which it does so at a hospital. A device's memory is a file that nobody clears; whoever holds some is listed with its pid.
"""

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).with_name("fake_gpu")
LIBRARIES: Final = {"libnvidia-ml.so.1": "nvml.c", "libcuda.so.1": "cuda.c"}

LARGE: Final = "GPU-11111111-1111-1111-1111-111111111111"
SMALL: Final = "GPU-22222222-2222-2222-2222-222222222222"
CUT: Final = "GPU-33333333-3333-3333-3333-333333333333"
SLICES: Final = (
    "MIG-44444444-4444-4444-4444-444444444441",
    "MIG-44444444-4444-4444-4444-444444444442",
    "MIG-44444444-4444-4444-4444-444444444443",
)

_TRAIN: Final = """
import ctypes, sys
from station.sandbox.gpu.wiping import Cuda
cuda = Cuda()
device, _ = cuda.only_device()
cuda.use(device)
size, secret = int(sys.argv[1]), sys.argv[2].encode()
address = cuda.take(size)
found = (ctypes.c_ubyte * size)()
cuda.call("cuMemcpyDtoH_v2", found, ctypes.c_uint64(address), ctypes.c_size_t(size))
if secret:
    text = secret * (size // len(secret))
    cuda.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), text, ctypes.c_size_t(len(text)))
sys.stdout.buffer.write(bytes(found))
sys.stdout.flush()
sys.stdin.read()
"""


def compile_libraries(folder: Path) -> Path:
    """Make both libraries."""
    for library, source in LIBRARIES.items():
        command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wno-format-truncation"]
        subprocess.run([*command, "-o", folder / library, SOURCES / source, "-ldl"], check=True, timeout=120)
    return folder


@dataclass
class FakeGpus:
    """A machine's devices; every change is seen by whoever asks next."""

    folder: Path
    lines: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, libraries: Path) -> "FakeGpus":
        """Put both libraries into a folder, with a driver and no device."""
        for library in LIBRARIES:
            # They keep their state where they were found, so each machine has links of its own.
            (folder / library).symlink_to(libraries / library)
        fake = cls(folder)
        fake.say("driver", "driver 570.86.15")
        return fake

    def say(self, key: str, line: str) -> None:
        """Set a fact."""
        self.lines[key] = line
        self._write()

    def unsay(self, key: str) -> None:
        """Take a fact back."""
        del self.lines[key]
        self._write()

    def _write(self) -> None:
        new = self.folder / "state.new"
        new.write_text("".join(f"{line}\n" for line in self.lines.values()))
        new.replace(self.folder / "state")

    def device(
        self, uuid: str, mib: int, *, minor: int = 0, mig: int = 0, pending: int | None = None
    ) -> None:
        """Put a GPU into the machine."""
        self.say(uuid, f"device {uuid} {minor} {mib} {mig} {mig if pending is None else pending} Fake")

    def slice(self, uuid: str, parent: str, mib: int, instance: int) -> None:
        """Cut a slice off a GPU."""
        self.say(uuid, f"slice {uuid} {parent} {mib} {instance} Slice")

    def process(self, uuid: str, pid: int, kind: str = "c") -> None:
        """Put a foreign process on a device: it computes (c) or draws (g)."""
        self.say(f"process {pid}", f"process {uuid} {pid} {kind}")

    def fault(self, name: str, number: int = 1) -> None:
        """Break something."""
        self.say(f"fault {name}", f"fault {name} {number}")

    def mend(self, name: str) -> None:
        """Mend it."""
        self.unsay(f"fault {name}")

    def memory(self, uuid: str) -> bytes:
        """What is in a device's memory now."""
        path = self.folder / f"{uuid}.memory"
        return path.read_bytes() if path.exists() else b""

    def train(self, uuid: str, size: int, secret: str = "") -> "subprocess.Popen[bytes]":
        """Start a train's process on a device of this machine; see `start_train`."""
        return start_train(uuid, size, secret, libraries=self.folder)


def start_train(
    uuid: str, size: int, secret: str = "", *, libraries: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a train's process on a device: it takes memory, tells what it finds there, writes, and stays.

    Args:
        uuid: the only device that it sees.
        size: how much memory, in bytes.
        secret: what it writes, again and again; nothing where empty.
        libraries: the driver's; this host's own without.
    """
    environment = {"CUDA_VISIBLE_DEVICES": uuid, "PATH": "/usr/bin:/bin"}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    return subprocess.Popen(
        [sys.executable, "-c", _TRAIN, str(size), secret],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )


def finds(process: "subprocess.Popen[bytes]", size: int) -> bytes:
    """What a train found in the memory that it got."""
    assert process.stdout is not None
    found = process.stdout.read(size)
    assert len(found) == size
    return found


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a train's process, as its container's end does."""
    process.kill()
    process.communicate(timeout=60)


def settled() -> None:
    """Wait until no device is being overwritten beside the test any more."""
    for thread in threading.enumerate():
        if thread.name.startswith("scrub-"):
            thread.join(120)
