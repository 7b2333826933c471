"""A network of its own for one station, with one cable to the rest: as slow as `tc tbf` makes it, losing packets as `iptables` drops them.

The kernel's own TCP is at work on it, with its retransmissions and windows: what `scale_links` only relays is here the
line itself. Needs root, `ip`, `tc` and `iptables`; `why_not` says what is missing. Both ends are shaped, so that each way
has the rate to itself, as a hospital's line has.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Self

HERE: Final = "10.78.0.1"
_THERE: Final = "10.78.0.2"
_PROGRAMS: Final = ("ip", "tc", "iptables", "nsenter", "unshare")
_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Line:
    """What the cable does.

    Attributes:
        bits_per_s: each way; none: as fast as it goes.
        loss: the share of packets that are dropped, each way.
    """

    bits_per_s: float | None = None
    loss: float = 0.0


def why_not() -> str | None:
    """What is missing here for a network of one's own; None where nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    try:
        with Cable(Line(bits_per_s=1e6, loss=0.01)):
            return None
    except (subprocess.CalledProcessError, OSError, RuntimeError):
        return "needs a kernel with network namespaces, veth, tbf and the packet filter's random match"


@dataclass
class Cable:
    """A context: `HERE` is its end on this side, `entering` what runs a command on the other."""

    line: Line
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Make the network."""
        with ExitStack() as stack:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(self._end)
            made = self._holder.stdout
            if made is None or not made.readline():
                raise RuntimeError("no network of its own can be made")
            self._lay()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away; the kernel takes the cable with the namespace."""
        self._stack.close()

    @property
    def entering(self) -> list[str]:
        """What to put before a command."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def _lay(self) -> None:
        near, far = f"pht{os.getpid() % 100_000}n", f"pht{os.getpid() % 100_000}f"
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        _run("ip", "link", "set", far, "netns", str(self._holder.pid))
        _run("ip", "address", "add", f"{HERE}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run(*self.entering, "ip", "link", "set", "lo", "up")
        _run(*self.entering, "ip", "address", "add", f"{_THERE}/30", "dev", far)
        _run(*self.entering, "ip", "link", "set", far, "up")
        if self.line.bits_per_s is not None:
            shape = (
                "root",
                "tbf",
                "rate",
                f"{self.line.bits_per_s:.0f}bit",
                "burst",
                "16kb",
                "latency",
                "100ms",
            )
            _run("tc", "qdisc", "add", "dev", near, *shape)
            _run(*self.entering, "tc", "qdisc", "add", "dev", far, *shape)
        if self.line.loss:
            drop = (
                "-m",
                "statistic",
                "--mode",
                "random",
                "--probability",
                f"{self.line.loss:g}",
                "-j",
                "DROP",
            )
            for chain in ("INPUT", "OUTPUT"):
                _run(*self.entering, "iptables", "-A", chain, "-p", "tcp", *drop)

    def _end(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": _PATH})
