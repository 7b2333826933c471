"""The time of day of one party, stepped while its programs run.

Linux has no namespace for the time of day, and setting the machine's would hit everybody. So every program of the cage is preloaded
with `clock.c`, which adds an offset per network namespace to what the C library says of the time of day; monotonic clocks, and what the
kernel notes on files, stay as they are. Programs that do not ask the C library (the engine's) are left out.
"""

import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PLACE = Path("/etc/pht-clocks")
_PAGE = 4096


@dataclass
class Clocks:
    """One clock for each party that has a network of its own."""

    _files: dict[str, Path] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def install(self, scratch: Path) -> None:
        """Give the cage an /etc of its own in which every program is preloaded; before any program starts."""
        etc = scratch / "etc"
        etc.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "pht-faults", str(etc)], check=True)
        subprocess.run(["cp", "-a", "/etc/.", str(etc)], check=True)
        (etc / _PLACE.name).mkdir()
        shim = etc / _PLACE.name / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(shim), str(source), "-ldl"], check=True)
        subprocess.run(["mount", "--bind", str(etc), "/etc"], check=True)
        Path("/etc/ld.so.preload").write_text(f"{_PLACE / 'clock.so'}\n")

    def give(self, party: str, namespace: str) -> None:
        """Give a party a clock, which is right.

        Args:
            party: its name.
            namespace: its network namespace, as a link in /proc.
        """
        file = _PLACE / str(Path(namespace).readlink())
        file.write_bytes(bytes(_PAGE))
        self._files[party] = file

    def set(self, party: str, seconds: int) -> None:
        """Set a party's clock so many seconds off the right time."""
        with self._lock, self._files[party].open("r+b") as file:
            file.write(struct.pack("=q", seconds))

    @contextmanager
    def stepped(self, party: str, seconds: int) -> Iterator[None]:
        """Step a party's clock, and put it right at the end."""
        self.set(party, seconds)
        try:
            yield
        finally:
            self.set(party, 0)
