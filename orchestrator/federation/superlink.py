"""Runs Flower's SuperLink on loopback, and says which of its routes stations may reach through the front.

The SuperLink serves its Fleet, Control and Runtime APIs on one port, and its Control API trusts whoever reaches it.
So it listens on 127.0.0.1 only, with TLS (it takes node authentication with TLS only) under a CA made here for
nothing else; `FLEET_ROUTES` is all that the front passes on. ServerApps run outside it (`--isolation process`), tasks
are claimed with a secret, and it installs nothing.
"""

import datetime as dt
import ipaddress
import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.federation.doorbells import Doorbells
from orchestrator.federation.flower import Control
from orchestrator.federation.ports import LOOPBACK, free_port
from orchestrator.federation.tasks import Address, SuperLinkDownError, SuperLinkRefusedError
from policies.errors import UnavailableError
from policies.files import write_atomically

FLEET_ROUTES = frozenset(
    {
        "/v1/fleet/activate-node",
        "/v1/fleet/deactivate-node",
        "/v1/fleet/send-node-heartbeat",
        "/v1/fleet/pull-messages",
        "/v1/fleet/push-messages",
        "/v1/fleet/pull-object",
        "/v1/fleet/push-object",
        "/v1/fleet/confirm-message-received",
        "/v1/fleet/get-run",
    }
)
"""The paths (all POST) that a station may reach. Not among them: registration (the operator's), and app bundles."""

_CERTIFICATE_DAYS = 3650


@dataclass(frozen=True, slots=True)
class SuperLinkFiles:
    """What the SuperLink keeps in its folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The loopback CA that the front and the worker pin."""
        return self.folder / "tls" / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The SuperLink's certificate."""
        return self.folder / "tls" / "superlink.pem"

    @property
    def key(self) -> Path:
        """The SuperLink's TLS key."""
        return self.folder / "tls" / "superlink.key"

    @property
    def secret(self) -> Path:
        """The secret that claims ServerApp tasks."""
        return self.folder / "superexec.secret"

    @property
    def database(self) -> Path:
        """Flower's database."""
        return self.folder / "superlink.db"

    @property
    def log(self) -> Path:
        """The SuperLink's own output."""
        return self.folder / "superlink.log"

    @property
    def doorbells(self) -> Doorbells:
        """Rung whenever an instruction was pushed for a station."""
        return Doorbells(self.folder / "doorbells")

    def prepare(self) -> None:
        """Make the TLS material and the secret, once."""
        (self.folder / "tls").mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.secret.exists():
            write_atomically(self.secret, secrets.token_bytes(32), mode=0o600)
        if not self.certificate.exists():
            _make_certificates(self)


class SuperLink:
    """One SuperLink process, started again when it ends.

    `start` returns once it answers. The port stays the same over restarts.
    """

    def __init__(self, folder: Path, port: int = 0, *, restart: bool = True) -> None:
        self.files = SuperLinkFiles(folder)
        self.port = port or free_port()
        self._restart = restart
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(LOOPBACK, self.port, self.files.ca)

    @property
    def pid(self) -> int | None:
        """The process now, or None."""
        return None if self._process is None else self._process.pid

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the process and wait until it answers.

        Raises:
            UnavailableError: it ended, or did not answer in time; its log says why.
        """
        self.files.prepare()
        self._stopping.clear()
        self._launch()
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UnavailableError(
                    "the SuperLink did not start", hint=f"Its output is in {self.files.log.name}."
                )
            self._stopping.wait(0.1)
        self._watcher = threading.Thread(target=self._watch, name="superlink-watch", daemon=True)
        self._watcher.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the process."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout_s)
        if self._watcher is not None:
            self._watcher.join(timeout_s)

    def control(self) -> Control:
        """A client for the worker's calls."""
        return Control(self.address, self.files.secret.read_bytes())

    def _launch(self) -> None:
        # The log holds what Flower prints; it is the operator's, and is cut at each start of ours.
        with self.files.log.open("ab") as log:
            self._process = subprocess.Popen(
                superlink_command(self.files, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=flower_environment(self.files.folder),
                start_new_session=True,
            )

    def _answers(self) -> bool:
        control = self.control()
        try:
            control.nodes()
        except (SuperLinkDownError, SuperLinkRefusedError):
            return False
        finally:
            control.close()
        return True

    def _watch(self) -> None:
        while not self._stopping.is_set():
            process = self._process
            if process is None:
                return
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
            if self._stopping.is_set() or not self._restart:
                return
            self._stopping.wait(0.5)
            if not self._stopping.is_set():
                self._launch()


def superlink_command(files: SuperLinkFiles, port: int) -> list[str]:
    """The argument vector of the SuperLink."""
    return [
        str(Path(sys.executable).with_name("flower-superlink")),
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(files.secret),
        "--database",
        str(files.database),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--ssl-ca-certfile",
        str(files.ca),
        "--ssl-certfile",
        str(files.certificate),
        "--ssl-keyfile",
        str(files.key),
    ]


def flower_environment(folder: Path) -> dict[str, str]:
    """The environment of a Flower process: quiet, offline, with its home inside our folder."""
    scripts = str(Path(sys.executable).parent)
    return {
        "PATH": f"{scripts}:{os.defpath}",
        "HOME": str(folder),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # A line per poll of each station would fill the disk.
        "FLWR_LOG_LEVEL": "WARNING",
        "LANG": "C.UTF-8",
    }


def _make_certificates(files: SuperLinkFiles) -> None:
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SuperLink on loopback")])
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "superlink")])
    certificate = (
        _certificate(name, ca_name, key.public_key(), now)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    # The CA's key is used once and not kept. The certificate comes last: it says that the others are there.
    write_atomically(files.ca, ca.public_bytes(serialization.Encoding.PEM))
    write_atomically(
        files.key,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        mode=0o600,
    )
    write_atomically(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_CERTIFICATE_DAYS))
    )
