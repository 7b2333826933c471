"""A network of its own for each party, with one cable to the orchestrator's that can be pulled."""

import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

ADDRESS = "10.77.0.1"
"""Where the orchestrator is reached, by every cable."""
RESEARCHER = 250


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass
class Network:
    """The orchestrator's network namespace, one per station, and the test's own, where researcher, board and witness are."""

    stations: Sequence[str]
    _holders: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self) -> None:
        """Make namespaces, cables, addresses and routes."""
        for name in ("orchestrator", *self.stations):
            self._holders[name] = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            made = self._holders[name].stdout
            assert made is not None
            made.readline()
            made.close()
            self._in(name, "ip", "link", "set", "lo", "up")
        _run("ip", "link", "set", "lo", "up")
        self._in("orchestrator", "ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        for number, name in enumerate(self.stations, 1):
            self._cable(number, name)
        self._cable(RESEARCHER, None)

    def entering(self, name: str) -> list[str]:
        """What to put before a command that runs in a party's network."""
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net"]

    def namespace(self, name: str) -> str:
        """The holder's network namespace, as a path."""
        return f"/proc/{self._holders[name].pid}/ns/net"

    def pull(self, *stations: str) -> None:
        """Pull the cables of stations."""
        self._set(stations, "down")

    def plug(self, *stations: str) -> None:
        """Put the cables of stations back."""
        self._set(stations, "up")

    def close(self) -> None:
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _set(self, stations: Sequence[str], state: str) -> None:
        with self._lock:
            for name in stations:
                self._in("orchestrator", "ip", "link", "set", self._end(name), state)

    def _end(self, name: str) -> str:
        return f"cable{self.stations.index(name) + 1}"

    def _cable(self, number: int, station: str | None) -> None:
        here, there = f"cable{number}", "uplink"
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        _run("ip", "link", "set", here, "netns", str(self._holders["orchestrator"].pid))
        if station is not None:
            _run("ip", "link", "set", there, "netns", str(self._holders[station].pid))
        prefix = [] if station is None else self.entering(station)
        self._in("orchestrator", "ip", "address", "add", f"10.77.{number}.1/30", "dev", here)
        self._in("orchestrator", "ip", "link", "set", here, "up")
        _run(*prefix, "ip", "address", "add", f"10.77.{number}.2/30", "dev", there)
        _run(*prefix, "ip", "link", "set", there, "up")
        _run(*prefix, "ip", "route", "add", "default", "via", f"10.77.{number}.1")

    def _in(self, name: str, *command: str) -> None:
        _run(*self.entering(name), *command)
