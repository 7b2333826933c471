"""A hospital's way out: a real proxy (tinyproxy) with users, a network without any other route, and a proxy that opens TLS."""

import base64
import contextlib
import os
import re
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from orchestrator_site import wait_until

from policies.wire.oci_auth import Credentials
from policies.wire.proxies import Proxy

USER, PASSWORD = "hospital", "pr0xy-Geheim-7361"
CREDENTIALS = Credentials(USER, PASSWORD)


@dataclass
class RealProxy:
    """tinyproxy, which can be killed and started again at the same place."""

    folder: Path
    address: str
    port: int
    allowed: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def log(self) -> str:
        path = self.folder / "tinyproxy.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def asked(self) -> list[str]:
        """What CONNECT was asked for, in order; refused ones as well."""
        return re.findall(r"CONNECT (\S+) HTTP/", self.log)

    def start(self) -> None:
        settings = self.folder / "tinyproxy.conf"
        settings.write_text(
            f'Listen {self.address}\nPort {self.port}\nLogFile "{self.folder}/tinyproxy.log"\nLogLevel Connect\n'
            f"BasicAuth {USER} {PASSWORD}\nConnectPort {self.allowed}\nMaxClients 100\nTimeout 600\n"
        )
        settings.chmod(0o600)
        self.process = subprocess.Popen(
            ["tinyproxy", "-d", "-c", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, 60, "the proxy")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(60)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "tinyproxy ended"
        try:
            socket.create_connection((self.address, self.port), timeout=5).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def real_proxy(folder: Path, allowed: int, address: str = "127.0.0.1") -> Iterator[RealProxy]:
    """Run a proxy that tunnels to one port, for one user."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(5)):
        with socket.socket() as probe:
            probe.bind((address, 0))
            proxy = RealProxy(folder, address, int(probe.getsockname()[1]), allowed)
        try:
            proxy.start()
            break
        except AssertionError:
            # Somebody else took the port meanwhile.
            if not left:
                raise
    try:
        yield proxy
    finally:
        proxy.kill()


@dataclass
class Enclosed:
    """A network of its own with one cable, and nothing at the other end of it but `outside`."""

    outside: str
    holder: int

    def entering(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net"]


@contextlib.contextmanager
def enclosed_network() -> Iterator[Enclosed]:
    """Make it; its name and its address follow from this process's number, so that two tests never meet."""
    number = os.getpid()
    net = f"10.{200 + (number >> 14) % 32}.{(number >> 6) % 256}.{number % 64 * 4}"
    base, _, last = net.rpartition(".")
    outside, inside = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
    cable = f"pht{number}"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"], stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            made = Enclosed(outside, holder.pid)
            _run(
                "ip", "link", "add", cable, "type", "veth", "peer", "name", "uplink", "netns", str(holder.pid)
            )
            _run("ip", "address", "add", f"{outside}/30", "dev", cable)
            _run("ip", "link", "set", cable, "up")
            _run(*made.entering(), "ip", "link", "set", "lo", "up")
            _run(*made.entering(), "ip", "address", "add", f"{inside}/30", "dev", "uplink")
            _run(*made.entering(), "ip", "link", "set", "uplink", "up")
            yield made
        finally:
            holder.kill()
            # Its end of the cable goes with the namespace, ours with its end.
            subprocess.run(["ip", "link", "delete", cable], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


@dataclass
class OpeningProxy:
    """One that opens TLS and closes it again under the hospital's own authority, as some hospitals do.

    Attributes:
        url: its address.
        authority: who signs what it shows.
        heads: the first line of each request that it could read.
    """

    url: str
    authority: trustme.CA
    heads: list[bytes] = field(default_factory=list)

    def proxy(self, ca: Path | None = None) -> Proxy:
        return Proxy(self.url, CREDENTIALS, ca)


@contextlib.contextmanager
def opening_proxy(upstream_ca: Path, *, itself_tls: bool = False) -> Iterator[OpeningProxy]:
    """Run one on loopback; `itself_tls` makes its own address an https one."""
    authority = trustme.CA()
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(shown)
    upstream = ssl.create_default_context(cafile=str(upstream_ca))
    wanted = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                line = shown.wrap_socket(self.request, server_side=True) if itself_tls else self.request
                with line:
                    self.serve(line)

        def serve(self, line: socket.socket) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += (got := line.recv(1))
                if not got:
                    return
            target = head.split()[1].decode()
            if wanted not in head:
                line.sendall(
                    b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=h\r\nContent-Length: 0\r\n\r\n"
                )
                return
            line.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=60) as raw:
                if itself_tls:
                    # TLS within TLS: it looks at nothing and passes on.
                    _pass(line, raw)
                    return
                with (
                    upstream.wrap_socket(raw, server_hostname=host) as far,
                    shown.wrap_socket(line, server_side=True) as near,
                ):
                    _pass(near, far, running.heads)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        scheme = "https" if itself_tls else "http"
        running = OpeningProxy(f"{scheme}://localhost:{server.server_address[1]}", authority)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join(60)


def _pass(near: socket.socket, far: socket.socket, heads: list[bytes] | None = None) -> None:
    while True:
        pending = [line for line in (near, far) if isinstance(line, ssl.SSLSocket) and line.pending()]
        for line in pending or select.select([near, far], [], [])[0]:
            line.settimeout(0.05)
            try:
                data = line.recv(65536)
            except TimeoutError:
                # TLS' own records: nothing for the other side.
                continue
            if not data:
                return
            if heads is not None and line is near:
                heads.append(data.split(b"\r\n")[0])
            onward = far if line is near else near
            onward.settimeout(60)
            onward.sendall(data)
