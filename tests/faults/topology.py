"""A whole consortium in a cage: orchestrator, witness and three stations, each with a network and a disk of its own, and an engine.

Everything is the real program, started as a service manager starts it (`units.Unit`) and made by the programs' own commands
(`tests.e2e`). The engine is a Docker of the test's own: the machine's is only used to build the train.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.consortium import BOARD, COLLECTION, Consortium, Hospital
from tests.e2e.programs import BIN, run, run_json
from tests.e2e.researcher import Researcher, Train
from tests.faults.clocks import Clocks
from tests.faults.network import ADDRESS, Network
from tests.faults.units import Unit
from tests.postgres_kit import binaries

STATIONS = ("hospital-a", "hospital-b", "hospital-c")
PORT = 8443
PATIENTS = 20
DISK_MIB = {"orchestrator": 1536, **dict.fromkeys(STATIONS, 1024)}
TRAIN = Path(__file__).with_name("train")

STRATEGIES = ("FedAdam", "FedAvg", "FedMedian", "FedAvgM")
"""Orders take turns: two keep moments between rounds, one keeps nothing, one needs every update by itself."""
ANSWERS = {
    "requester.organisation": "University Hospital A, Department of Radiology",
    "requester.contact": "R. de Vries",
    "radiologist": "Dr. M. Jansen, thoracic radiologist",
    "legal.national_ground": "UAVG article 24, for patients who did not object; phantoms have no law.",
    "legal.controllers": ["Each hospital of the test for its own data"],
    "legal.dpia": "DPIA of the test",
    "legal.ethics": "METC of the test, not subject to the WMO",
    "legal.agreement.reference": "Agreement of the test",
    "data.collections": [COLLECTION],
    "data.minimum_patients": 5,
    "runs.runs": 1000,
    "runs.rounds": 100,
    "runs.releases": 100000,
    "runs.strategies": list(STRATEGIES),
    "release.minimum_patients_per_metric": 1,
    "release.timing_quantum_s": 0,
}
STATION_SETTINGS = {
    r'^inspect = "require"': 'inspect = "off"',
    r"^keep_free_mib = \d+": "keep_free_mib = 8",
    r"^free_mib = \d+": "free_mib = 64",
    r"^unwitnessed_limit_s = .*": "unwitnessed_limit_s = 36000.0",
}
"""What a station of the test has otherwise than others: phantoms have no text, its disk is small."""


@dataclass(slots=True)
class Approved:
    """A train that may run."""

    train: Train
    policy: Path
    weights: Path


@dataclass
class Site(Consortium):
    """The consortium, and what a fault can be done to.

    Attributes:
        data: a folder on a real disk, for the engine's layers.
        cgroup: the control groups that containers lie in.
        postgres: whether the orchestrator's state lies in a PostgreSQL of its own.
        units: the programs that are kept running, by name.
    """

    data: Path = Path()
    cgroup: str = ""
    postgres: bool = False
    units: dict[str, Unit] = field(default_factory=dict)
    network: Network = field(default_factory=lambda: Network(STATIONS))
    clocks: Clocks = field(default_factory=Clocks)

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{PORT}"

    @property
    def orchestrator(self) -> Path:
        return self.disk("orchestrator") / "home"

    @property
    def engine_socket(self) -> Path:
        return self.root / "engine" / "docker.sock"

    def disk(self, party: str) -> Path:
        """Where a party's own small disk is mounted."""
        return self.root / f"disk-{party}"

    def make_disk(self, party: str) -> None:
        """A file system of its own, in memory."""
        place = self.disk(party)
        place.mkdir()
        options = f"mode=0755,size={DISK_MIB[party]}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "pht-faults", str(place)], check=True)

    def hospital(self, name: str) -> Hospital:
        return next(each for each in self.hospitals if each.name == name)

    def make_namespaces(self) -> None:
        """A network and a clock for every party; before any program starts."""
        self.clocks.install(self.root)
        self.network.make()
        for party in ("orchestrator", *STATIONS):
            self.clocks.give(party, self.network.namespace(party))

    # -- programs --------------------------------------------------------------------------------------------

    def keep(self, name: str, command: list[str], *, ready: str | None, network: str | None = None) -> Unit:
        """Start a program and keep it running."""
        prefix = self.network.entering(network) if network else []
        (self.root / "kept").mkdir(exist_ok=True)
        unit = Unit(name, [*prefix, *command], self.root / "kept" / f"{name}.log", ready=ready)
        self.units[name] = unit
        unit.start()
        return unit

    def start_engine(self) -> Unit:
        """A Docker of the test's own, without networks; the machine's is left alone."""
        folder = self.engine_socket.parent
        folder.mkdir()
        if (containerd := Path("/run/containerd")).is_dir():
            # Docker would take the machine's containerd where it sees one.
            subprocess.run(["mount", "-t", "tmpfs", "pht-faults", str(containerd)], check=True)
        command = ["dockerd", "--data-root", str(self.data / "engine"), "--exec-root", str(folder / "exec")]
        command += ["--pidfile", str(folder / "docker.pid"), "--host", f"unix://{self.engine_socket}"]
        command += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        command += ["--cgroup-parent", f"/{self.cgroup}"]
        return self.keep("engine", command, ready="API listen on")

    def start_database(self) -> str:
        """A PostgreSQL of the orchestrator's; returns its URL."""
        folder, data = self.root / "database", self.root / "database" / "data"
        folder.mkdir()
        shutil.chown(folder, "postgres", "postgres")
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        made = [
            "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        made[0] = binaries() / "initdb"
        subprocess.run([*as_postgres, *made], check=True, capture_output=True, cwd="/")
        command = [str(binaries() / "postgres"), "-D", str(data), "-k", str(folder), "-h", "", "-p", "5432"]
        unit = self.keep(
            "database",
            [*as_postgres, *command, "-c", "shared_buffers=16MB"],
            ready="ready to accept connections",
        )
        unit.await_ready()
        with psycopg.connect(
            host=str(folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE USER pht")
            connection.execute("CREATE DATABASE pht OWNER pht")
        return f"postgresql://pht@/pht?host={folder}&port=5432"

    def start_orchestrator(self) -> Any:
        self.make_disk("orchestrator")
        run(
            "pht-orchestrator", "init", self.orchestrator, "--host", ADDRESS, "--port", PORT, "--bind", "0.0.0.0",  # noqa: S104 - in a network of its own
            "--root", self.tuf_root,
        )  # fmt: skip
        settings = self.orchestrator / "orchestrator.toml"
        text = settings.read_text()
        assert "free_disk_mib = 1024" in text
        assert '[database]\nurl = ""' in text
        text = text.replace("free_disk_mib = 1024", "free_disk_mib = 32")
        if self.postgres:
            text = text.replace('[database]\nurl = ""', f'[database]\nurl = "{self.start_database()}"')
        settings.write_text(text)
        for role in ("researcher", "board", "witness"):
            made = run_json(
                "pht-orchestrator", "token", "new", self.orchestrator, "--role", role, "--name", role
            )
            self.token(role).write_text(made["token"])
            self.token(role).chmod(0o600)
        command = [str(BIN / "pht-orchestrator"), "serve", str(self.orchestrator), "--json"]
        unit = self.keep("orchestrator", command, ready='"ready"', network="orchestrator")
        unit.await_ready()
        return unit

    def start_witness(self) -> None:
        self.keep(
            "witness",
            [
                *(str(BIN / "pht-board"), "witness", "--repository", str(self.repository)),
                *("--key", str(self.key("witness")), "--every", "20", "--lifetime", "7200"),
                *("--publish-to", f"{self.url}/api/v1/mirror", "--token-file", str(self.token("witness"))),
                *("--ca", str(self.ca)),
            ],
            ready="witness_vouched",
        )

    def add_hospital(self, name: str, source: Path, approval: str = "never") -> Hospital:
        self.make_disk(name)
        home = self.disk(name) / "home"
        run(
            "pht-station", "init", home, "--name", name, "--orchestrator", self.url, "--ca", self.ca, "--root",
            self.tuf_root, "--collection", COLLECTION, "--marking", self.marking, "--approval", approval,
        )  # fmt: skip
        toml = home / "station.toml"
        text = toml.read_text().replace("/var/run/docker.sock", str(self.engine_socket))
        for pattern, value in STATION_SETTINGS.items():
            text, count = re.subn(pattern, value, text, flags=re.MULTILINE)
            assert count == 1, f"station.toml has no {pattern}"
        toml.write_text(text)
        hospital = Hospital(name, home, source)
        self.hospitals.append(hospital)
        return hospital

    def start_station(self, hospital: Hospital) -> None:
        command = [str(BIN / "pht-station"), "serve", "--home", str(hospital.home)]
        unit = self.keep(
            hospital.name, command, ready=f"station {hospital.name} is ready", network=hospital.name
        )
        unit.await_ready()

    def stop_all(self) -> None:
        """End every program, the stations first and the engine last."""
        for names in ((*STATIONS, "witness"), ("orchestrator", "engine", "database")):
            units = [self.units[name] for name in names if name in self.units]
            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(Unit.stop, units))

    # -- the engine ------------------------------------------------------------------------------------------

    def docker(self, *arguments: str) -> str:
        """Ask the test's engine something; what it cannot answer is an empty string."""
        done = subprocess.run(
            ["docker", "--host", f"unix://{self.engine_socket}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout if done.returncode == 0 else ""

    def containers(self) -> list[str]:
        """Every container that the engine knows."""
        return self.docker("ps", "-aq", "--no-trunc").split()


def prepare(site: Site, source: Path) -> tuple[Researcher, Train]:
    """What needs nobody else: radiographs, and a researcher with a packed train."""
    run("pht-train", "phantoms", source, "--hospitals", len(STATIONS), "--patients", PATIENTS)
    researcher = Researcher(site)
    researcher.settle()
    return researcher, researcher.build(TRAIN)


def found(site: Site) -> None:
    """Board, orchestrator, witness."""
    site.found_board()
    site.start_orchestrator()
    site.publish()
    site.start_witness()


def open_station(site: Site, hospital: Hospital) -> None:
    """Start a station and take its radiographs in."""
    site.start_station(hospital)
    site.take_in(hospital)


def approve(site: Site, researcher: Researcher, train: Train) -> Approved:
    """The train is submitted, reviewed, signed and published."""
    researcher.submit(train)
    answers = site.board / "answers.yaml"
    answers.write_text(json.dumps(ANSWERS))
    policy = site.board / "wide.yaml"
    run(
        "pht-board", "draft", "--from", train.bundle, "--out", policy, "--requester-key",
        researcher.key.with_suffix(".pub"), "--board", BOARD, "--answers", answers,
    )  # fmt: skip
    policy.write_text(policy.read_text().replace("FILL IN", "For the test,"))
    site.sign(policy, ("clinician", "patient"), "--train", train.bundle)
    site.publish(policy)
    return Approved(train, policy, researcher.initial_weights(train))


@contextmanager
def consortium(
    scratch: Path, data: Path, cgroup: str, *, postgres: bool
) -> Iterator[tuple[Site, Researcher, Approved]]:
    """A consortium ready for orders; its programs are ended with the block."""
    site = Site(scratch, data=data, cgroup=cgroup, postgres=postgres)
    site.make_namespaces()
    source = scratch / "radiographs"
    try:
        with ThreadPoolExecutor(4) as pool:
            working = pool.submit(prepare, site, source)
            site.start_engine()
            found(site)
            list(pool.map(lambda name: site.add_hospital(name, source / name), STATIONS))
            site.hospitals.sort(key=lambda hospital: hospital.name)
            site.register_hospitals()
            researcher, train = working.result()
            site.units["engine"].await_ready()
            opening = [pool.submit(open_station, site, hospital) for hospital in site.hospitals]
            approved = approve(site, researcher, train)
            for each in opening:
                each.result()
        yield site, researcher, approved
    finally:
        site.stop_all()
        site.network.close()


def processes() -> Iterator[tuple[int, list[str]]]:
    """Every living process of the cage with its arguments."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words != [""]:
            yield int(entry.name), words


def until(condition: Any, timeout_s: float, pause_s: float = 0.05) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
