"""A whole consortium on one machine, made by the four programs: a board of three, an orchestrator, three hospitals."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from orchestrator.federation.ports import free_port
from tests.e2e.programs import Server, run, run_json

MEMBERS = (
    ("clinician", "Dr. A. Visser", "clinician"),
    ("lawyer", "Mr. B. de Boer", "lawyer"),
    ("patient", "C. Smit", "patient-representative"),
)
BOARD = "thorax-board"
PURPOSES = Path(__file__).parents[2] / "policies" / "examples" / "purposes.yaml"
COLLECTION = "thorax-cxr"
PASSPHRASE = "correct horse battery staple"

Say = Callable[[str], None]


@dataclass(slots=True)
class Hospital:
    """One station and where its raw data comes from."""

    name: str
    home: Path
    source: Path
    server: Server | None = None

    def call(self, *arguments: object) -> str:
        """Run a pht-station command on this station."""
        return run("pht-station", *arguments, "--home", self.home)

    def ask(self, *arguments: object) -> Any:
        """Run a pht-station command and return its JSON."""
        return run_json("pht-station", *arguments, "--home", self.home)


@dataclass(slots=True)
class Consortium:
    """Everyone's folders under one root, each party's own.

    Attributes:
        servers: what has to be stopped at the end.
        fixed_keys: whether a station's keys follow from its name, so that the same patients are tested on every time.
    """

    root: Path
    servers: list[Server] = field(default_factory=list)
    hospitals: list[Hospital] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    marking: str = "public"
    fixed_keys: bool = False

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def board(self) -> Path:
        return self.root / "board"

    @property
    def repository(self) -> Path:
        return self.board / "repository"

    @property
    def tuf_root(self) -> Path:
        return self.board / "root.json"

    @property
    def orchestrator(self) -> Path:
        return self.root / "orchestrator"

    @property
    def ca(self) -> Path:
        return self.orchestrator / "tls" / "ca.pem"

    @property
    def researcher(self) -> Path:
        return self.root / "researcher"

    def key(self, name: str) -> Path:
        return self.board / "keys" / f"{name}.pem"

    def token(self, name: str) -> Path:
        return self.root / f"{name}.token"

    # -- the board -------------------------------------------------------------------------------------------

    def found_board(self) -> None:
        """Keys for members, secretary and witness; the charter, signed by its members as the root."""
        (self.board / "keys").mkdir(parents=True)
        passphrase = self.board / "passphrase"
        passphrase.write_text(PASSPHRASE)
        passphrase.chmod(0o600)
        for name, *_ in MEMBERS:
            run("pht-board", "member", "new", self.key(name), "--passphrase-file", passphrase)
        for name in ("secretary", "witness"):
            run("pht-board", "member", "new", self.key(name), "--no-passphrase")
        charter = self.board / "charter.yaml"
        charter.write_text(
            yaml.safe_dump(
                {
                    "schema_version": 1,
                    "board": BOARD,
                    "title": "Board of the thorax imaging consortium",
                    "members": [
                        {"name": person, "organisation": "Consortium", "role": role, "key": self.public(name)}
                        for name, person, role in MEMBERS
                    ],
                    "threshold": 2,
                    "required_roles": ["clinician", "patient-representative"],
                }
            )
        )
        run(
            "pht-board", "init", self.repository, "--charter", charter, "--secretary-key",
            self.public("secretary"), "--witness-key", self.public("witness"),
        )  # fmt: skip
        for name in ("clinician", "patient"):
            run(
                "pht-board", "sign", "--root", self.repository, "--key", self.key(name),
                "--passphrase-file", passphrase, "--yes",
            )  # fmt: skip
        run("pht-board", "publish", "--repository", self.repository, "--key", self.key("secretary"))
        run("pht-board", "witness", "--repository", self.repository, "--key", self.key("witness"), "--once")
        roots = sorted(self.repository.rglob("1.root.json"))
        self.tuf_root.write_bytes(roots[0].read_bytes())

    def public(self, name: str) -> str:
        return self.key(name).with_suffix(".pub").read_text().strip()

    def sign(self, document: Path, members: Iterable[str], *extra: object, command: str = "sign") -> None:
        for name in members:
            run(
                "pht-board", command, document, "--key", self.key(name), "--passphrase-file",
                self.board / "passphrase", "--yes", *extra,
            )  # fmt: skip

    def publish(self, *documents: Path) -> None:
        """The secretary publishes to the mirror; the witness vouches for it."""
        mirror = ("--to", f"{self.url}/api/v1/mirror", "--token-file", self.token("board"), "--ca", self.ca)
        run(
            "pht-board", "publish", *documents, "--repository", self.repository, "--key",
            self.key("secretary"), *mirror,
        )  # fmt: skip
        self.vouch()

    def vouch(self) -> None:
        run(
            "pht-board", "witness", "--repository", self.repository, "--key", self.key("witness"), "--once",
            "--publish-to", f"{self.url}/api/v1/mirror", "--token-file", self.token("witness"), "--ca", self.ca,
        )  # fmt: skip

    def start_witness(self) -> None:
        """The freshness witness as the daemon it is."""
        server = Server(
            self.root / "witness.log", "pht-board", "witness", "--repository", self.repository, "--key",
            self.key("witness"), "--every", 20, "--lifetime", 600, "--publish-to", f"{self.url}/api/v1/mirror",
            "--token-file", self.token("witness"), "--ca", self.ca, ready="witness_vouched",
        )  # fmt: skip
        server.start()
        self.servers.append(server)

    def revoke(self, *what: object, reason: str) -> None:
        """Withdraw a policy and version, ``--requester KEY`` or ``--station NAME``; the witness vouches for it."""
        run(
            "pht-board", "revoke", *what, "--reason", reason, "--repository", self.repository, "--key",
            self.key("secretary"), "--to", f"{self.url}/api/v1/mirror", "--token-file", self.token("board"),
            "--ca", self.ca,
        )  # fmt: skip
        self.vouch()

    # -- the orchestrator ------------------------------------------------------------------------------------

    def start_orchestrator(self) -> Server:
        run(
            "pht-orchestrator", "init", self.orchestrator, "--host", "localhost", "--port", self.port, "--bind",
            "127.0.0.1", "--root", self.tuf_root,
        )  # fmt: skip
        for role in ("researcher", "board", "witness"):
            made = run_json(
                "pht-orchestrator", "token", "new", self.orchestrator, "--role", role, "--name", role
            )
            self.token(role).write_text(made["token"])
            self.token(role).chmod(0o600)
        server = Server(
            self.root / "orchestrator.log",
            "pht-orchestrator",
            "serve",
            self.orchestrator,
            "--json",
            ready="ready",
        )
        server.start()
        self.servers.append(server)
        return server

    # -- the hospitals ---------------------------------------------------------------------------------------

    def add_hospital(self, name: str, source: Path, approval: str = "never") -> Hospital:
        """Make a hospital's station; it is registered by the board afterwards."""
        home = self.root / name
        run(
            "pht-station", "init", home, "--name", name, "--orchestrator", self.url, "--ca", self.ca, "--root",
            self.tuf_root, "--collection", COLLECTION, "--marking", self.marking, "--approval", approval,
        )  # fmt: skip
        if self.fixed_keys:
            _fix_keys(home, name)
        hospital = Hospital(name, home, source)
        self.hospitals.append(hospital)
        return hospital

    def register_hospitals(self, version: int = 1) -> None:
        """The board signs the register of stations and the table of purposes; the orchestrator takes them up."""
        expires = (datetime.now(UTC) + timedelta(days=365)).date().isoformat()
        stations = []
        for hospital in self.hospitals:
            card = json.loads((hospital.home / "card.json").read_bytes())
            stations.append(
                {
                    **card,
                    "organisation": hospital.name.replace("-", " ").title(),
                    "country": "NL",
                    "agreement": {"reference": "Consortium agreement 2026", "expires": expires},
                }
            )
        register = self.board / f"stations-{version}.yaml"
        register.write_text(
            yaml.safe_dump({"schema_version": 1, "board": BOARD, "version": version, "stations": stations})
        )
        self.sign(register, ("clinician", "patient"), command="register")
        purposes = self.board / "purposes.yaml"
        purposes.write_bytes(PURPOSES.read_bytes())
        self.sign(purposes, ("clinician", "patient"), command="purposes")
        self.publish(register, purposes)
        run("pht-orchestrator", "station", "sync", self.orchestrator)

    def start_station(self, hospital: Hospital) -> None:
        server = Server(
            self.root / f"{hospital.name}.log", "pht-station", "serve", "--home", hospital.home,
            ready=f"station {hospital.name} is ready",
        )  # fmt: skip
        server.start()
        hospital.server = server
        self.servers.append(server)

    def take_in(self, hospital: Hospital) -> dict[str, Any]:
        """Consent, images, eCRF."""
        hospital.call("consent", "import", hospital.source / "consent.csv")
        report = hospital.ask("ingest", hospital.source / "dicom", "--collection", COLLECTION)
        hospital.call("clinical", "import", hospital.source / "ecrf.csv", "--collection", COLLECTION)
        return dict(report)


def _fix_keys(home: Path, name: str) -> None:
    """Write over the two keys that decide who is in which split; of some 57 patients random ones test on too few at times."""
    secret = hashlib.sha256(f"pseudonym {name}".encode()).digest()
    path = home / "intake" / "keys" / "pseudonym.key"
    document = json.loads(path.read_bytes())
    document["secret"] = base64.b64encode(secret).decode()
    document["key_id"] = hashlib.sha256(b"pht-pseudonym-key-id" + secret).hexdigest()[:16]
    # In place: the files keep their owners and modes.
    path.write_text(json.dumps(document))
    (home / "compute" / "keys" / "cohort.key").write_bytes(hashlib.sha256(f"cohort {name}".encode()).digest())
