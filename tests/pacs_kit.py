"""A real PACS (Orthanc with DICOMweb) and dcmtk's programs, for the tests of intake's sources.

`Orthanc` is started in a folder of the test, on free ports of this host, and can be killed and started again on what it has.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Any, Self

import httpx
import trustme
from pydicom import dcmread

from orchestrator.federation.ports import free_port

ORTHANC = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DCMTK = Path("/usr/bin")
USER, PASSWORD = "station", "loopback-only"
DEADLINE_S = 180.0
# Without it dcmtk waits 40 ms for the kernel's delayed acknowledgement in every message.
DCMTK_ENVIRONMENT = {"PATH": os.defpath, "TCP_NODELAY": "1"}
_ACKNOWLEDGED = re.compile(r"^I: Sending file: (.+)$|^I: Received Store Response \((\w+)", re.MULTILINE)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Ask until it holds; fails when the deadline is over."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: the deadline is over"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Certificates:
    """A certificate authority and one party's certificate of it, as files."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def issue(cls, folder: Path, authority: trustme.CA, name: str) -> "Certificates":
        """A certificate for loopback."""
        folder.mkdir(parents=True, exist_ok=True)
        made = authority.issue_cert("localhost", "127.0.0.1", common_name=name)
        paths = cls(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        authority.cert_pem.write_to_path(str(paths.authority))
        paths.certificate.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(paths.key))
        paths.key.chmod(0o600)
        return paths


@dataclass
class Orthanc:
    """One PACS. `start` it, `stop` or `kill` it, `start` it again; use it as a context manager.

    Attributes:
        modalities: who may ask and to whom it sends: AE title -> port on loopback.
        tls: its certificate, for DICOM TLS with client certificates; None for none.
        options: more keys of its configuration.
    """

    folder: Path
    modalities: Mapping[str, int] = field(default_factory=dict)
    tls: Certificates | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    aet: str = "ORTHANC"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dicom_port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self.client = httpx.Client(base_url=self.url, auth=(USER, PASSWORD), timeout=60, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()

    def start(self) -> None:
        """Start it on what it has and wait until it answers on both ports."""
        configuration = self.folder / "orthanc.json"
        configuration.write_text(dumps(self._configuration()))
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(ORTHANC), str(configuration)], stdout=log, stderr=log, env=DCMTK_ENVIRONMENT
            )
        wait_until(self._answers, "Orthanc")

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Pull the plug."""
        self._end(signal.SIGKILL)

    def add(self, *files: bytes | Path) -> None:
        """Put instances in."""
        for file in files:
            data = file if isinstance(file, bytes) else file.read_bytes()
            self.client.post("/instances", content=data).raise_for_status()

    def remove(self, level: str, uid: str) -> None:
        """Delete by DICOM UID; the level is "instance", "series" or "study"."""
        found = self.client.post("/tools/lookup", content=uid).raise_for_status().json()
        paths = [entry["Path"] for entry in found if entry["Type"].lower() == level]
        assert paths, f"no such {level}"
        for path in paths:
            self.client.delete(path).raise_for_status()

    def instances(self) -> int:
        """How many it holds."""
        count: int = self.client.get("/statistics").raise_for_status().json()["CountInstances"]
        return count

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "orthanc.log").read_text()[-2000:]
        try:
            return self.client.get("/system").status_code == 200 and listens(self.dicom_port)
        except httpx.TransportError:
            return False

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)

    def _configuration(self) -> dict[str, object]:
        tls: dict[str, object] = {}
        if self.tls is not None:
            tls = {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(self.tls.certificate),
                "DicomTlsPrivateKey": str(self.tls.key),
                "DicomTlsTrustedCertificates": str(self.tls.authority),
            }
        return {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(DICOMWEB)],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": "127.0.0.1", "Ssl": False},
            "DicomAet": self.aet,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomModalities": {
                name: {"AET": name, "Host": "127.0.0.1", "Port": port, "UseDicomTls": self.tls is not None}
                for name, port in self.modalities.items()
            },
            "DicomAlwaysAllowFind": False,
            "DicomAlwaysAllowGet": False,
            "DicomAlwaysAllowMove": False,
            "OverwriteInstances": True,
            **tls,
            **self.options,
        }


def dcmtk(program: str, *arguments: object, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run one of dcmtk's programs to its end."""
    return subprocess.run(
        [str(DCMTK / program), *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout_s, check=False, env=DCMTK_ENVIRONMENT,
    )  # fmt: skip


def tls_arguments(certificates: Certificates | None) -> list[object]:
    """What dcmtk's programs need to speak TLS as this party."""
    if certificates is None:
        return []
    return ["+tls", certificates.key, certificates.certificate, "+cf", certificates.authority]


def storescu_arguments(
    port: int, files: Iterable[Path], *, calling: str, called: str, tls: Certificates | None = None
) -> Sequence[object]:
    """The arguments to send files to a port of loopback, telling of each response."""
    return ["-v", "-R", *tls_arguments(tls), "-aet", calling, "-aec", called, "127.0.0.1", port, *files]


def acknowledged(output: str) -> list[Path]:
    """The files that storescu saw acknowledged with success, from what it printed."""
    found: list[Path] = []
    sending: Path | None = None
    for match in _ACKNOWLEDGED.finditer(output):
        if match[1]:
            sending = Path(match[1])
        elif match[2] == "Success" and sending is not None:
            found.append(sending)
            sending = None
    return found


def sop_instance_uid(data: bytes | Path) -> str:
    """The SOP Instance UID of a file."""
    source: Any = BytesIO(data) if isinstance(data, bytes) else data
    return str(dcmread(source, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
