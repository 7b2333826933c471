"""The walk-through of policies/README.md by people who have nothing else: the board, a hospital and a researcher.

Every command is typed as it stands there, to the real programs, in the order of the page, over a real HTTPS mirror. Two
things are played: the orchestrator, which hands the order to the station's own handler as its agent would, and `serve`, which
runs here in threads, without a container engine. A comment behind a command says which refusal it must show.
"""

import json
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from board_kit import https_server, mirror_handler
from catalogue_log import Intake
from reading_kit import files, pack
from safetensors.numpy import save_file
from station_kit import LauncherSimulator, order_digest, prepare, weights

import policies.cli
import station.cli
import train_images.cli
from policies.blobs import BlobFolder
from policies.console import run
from policies.errors import ExitCode
from policies.refusal_texts import text_of
from policies.wire.instructions import StationReply, Status
from station.assembly import assemble
from station.audit import AuditLog
from station.intake.installation import load_handover_key
from station.intake.paths import IntakePaths
from station.layout import StationPaths
from station.settings import load_settings
from station.storage import open_database
from station.web.api import create_api
from station.web.server import _Server, listening, read_token

README = (Path(__file__).parents[2] / "policies" / "README.md").read_text("utf-8")
WALK = README.split("## From an empty folder to a policy in force")[1].split("\n## ")[0]
PROGRAMS = {
    "pht-board": policies.cli.app,
    "pht-station": station.cli.app,
    "pht-train": train_images.cli.app,
}


class Served:
    """A station as `serve` puts it together, and what its agent would be handed."""

    def __init__(self, home: Path) -> None:
        self.paths = StationPaths(home.resolve())
        self.database = open_database(self.paths.database)
        self.launcher = LauncherSimulator()
        audit = AuditLog(self.database)
        self.parts = assemble(
            self.paths,
            load_settings(home),
            self.database,
            audit,
            self.launcher,  # type: ignore[arg-type]
        )

    @contextmanager
    def answering(self) -> Iterator["Served"]:
        """Its API on the socket that `pht-station` speaks to."""
        api = create_api(self.parts.desk, read_token(self.paths.api_token))
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", ws="none")
        server = _Server(config)
        with listening(self.paths.api_socket) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join(60)
                self.parts.warm.close()
                self.database.close()

    def handed(self, envelope: bytes) -> StationReply:
        """What the station answers when the order comes."""
        return self.parts.agent._handler.handle(prepare(envelope), None)[0]

    def consents(self) -> None:
        """What `pht-station consent import` comes to."""
        intake = Intake(self.paths.handover, load_handover_key(IntakePaths(self.paths.home)))
        intake.consent(source=datetime.now(UTC), p0="consent")
        self.parts.catalogue.sync()


@dataclass
class Walk:
    """Where we are: the folder, the address of the mirror, and what was said last."""

    folder: Path
    address: str
    capsys: pytest.CaptureFixture[str]
    served: Served | None = None
    replies: list[StationReply] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        text = re.sub(
            r"<(\w+\.pub)>", lambda match: (self.folder / match[1]).read_text("utf-8").strip(), text
        )
        card = self.folder / "amstel" / "card.json"
        if card.exists():
            for key, value in json.loads(card.read_text("utf-8")).items():
                text = text.replace(f"<{key}>", value)
        (self.folder / name).write_text(text)

    def type(self, line: str) -> None:
        command, _, refusal = line.partition("  # no: ")
        program, *arguments = shlex.split(command.replace("https://localhost:8443", self.address))
        expected = ExitCode.REFUSED if refusal else ExitCode.OK
        self.capsys.readouterr()
        assert run(PROGRAMS[program], [*arguments, *_asked(arguments)]) == expected, (
            line,
            self.capsys.readouterr().err,
        )
        out = self.capsys.readouterr().out
        assert refusal in out, line
        self.said[line] = out

    def hand(self) -> None:
        assert self.served is not None
        self.replies.append(self.served.handed((self.folder / "order.json").read_bytes()))


def _asked(arguments: list[str]) -> list[str]:
    """What a person would be asked: a yes, and the passphrase of the researcher's key."""
    if arguments[0] in {"sign", "purposes", "dissent", "register"}:
        return ["--yes"]
    return ["--passphrase-file", "passphrase"] if "order" in arguments else []


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path is at most 108 bytes long.
    with tempfile.TemporaryDirectory(prefix="walk-", dir="/tmp") as name:
        yield Path(name)


def test_from_an_empty_folder_to_the_stations_audit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "passphrase").write_text("correct horse")
    (folder / "passphrase").chmod(0o600)
    # What the researcher has packed.
    shutil.copy(pack(folder / "bundle", [files(etc__os_d_release="NAME=x")]) / "train.yaml", folder)
    save_file(weights(), folder / "initial.safetensors")

    class Mirror(mirror_handler(folder / "mirror")):  # type: ignore[misc]
        def _file(self) -> Path:
            return folder / "mirror" / self.path.removeprefix("/api/v1/mirror/")

    with https_server(Mirror) as (address, authority):
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        walk = Walk(folder, address, capsys)
        _walk(walk, monkeypatch)
    refused, waits, revoked = walk.replies
    assert (refused.status, refused.code) == (Status.REFUSED, "CONSENT_UNKNOWN")
    assert (waits.status, waits.code) == (Status.PENDING, "OPERATOR_PENDING")
    assert (revoked.status, revoked.code) == (Status.REFUSED, "POLICY_REVOKED")
    _look_at_the_audit(folder)


def _walk(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, language, block in re.findall(r"(.*?)```(console|yaml)\n(.*?)```", WALK, re.DOTALL):
        if language == "yaml":
            # The file that the text before it names first.
            walk.write(re.findall(r"`(\w+\.yaml)`", text)[0], block)
            continue
        for line in block.strip().splitlines():
            # The witness is a daemon; everyone else would be asked for a passphrase.
            monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
            if "witness.pem" in line:
                monkeypatch.delenv("PHT_PASSPHRASE")
            if line.startswith("pht-station serve"):
                rest = WALK.split(line, 1)[1]
                with Served(walk.folder / "amstel").answering() as walk.served:
                    _rest(walk, monkeypatch, rest)
                return
            walk.type(line)


def _rest(walk: Walk, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    """The page from `serve` on, while the station is served."""
    served = walk.served
    assert served is not None
    BlobFolder(served.paths.layers).put_bytes((walk.folder / "train.yaml").read_bytes())
    for block in re.findall(r"(?:```console\n|^)((?:pht-|\n)[^`]*?)```", rest):
        for line in block.strip().splitlines():
            monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
            if "witness.pem" in line:
                monkeypatch.delenv("PHT_PASSPHRASE")
            if line.startswith("pht-station trains"):
                served.consents()
                walk.hand()
            if line.endswith("# no: POLICY_REVOKED"):
                walk.hand()
            walk.type(line)
            if line.startswith("pht-train order new"):
                walk.hand()
            if line.endswith("# no: CONSENT_UNKNOWN"):
                _explained(walk, line)
    assert served.launcher.removed == 0
    assert list(served.paths.cohorts.iterdir()) == []
    assert "verified" in walk.said["pht-station status --home amstel"]
    assert (
        order_digest((walk.folder / "order.json").read_bytes())[7:19]
        in (walk.said["pht-station runs --home amstel"])
    )
    assert (
        "consent" in walk.said["pht-station explain cxr-classification --home amstel  # no: CONSENT_UNKNOWN"]
    )


RULES = {
    "policy repository and signatures", "features", "time", "purpose", "register", "order", "manifest", "hospital",
    "consent", "data", "budgets", "operator", "anonymity", "resources",
}  # fmt: skip


def _explained(walk: Walk, line: str) -> None:
    """Every rule with its verdict, and what to do where it is no: for a person, and for a script."""
    code, *arguments = shlex.split(line.partition("  #")[0])
    assert run(PROGRAMS[code], [*arguments, "--json"]) == ExitCode.REFUSED
    rules = json.loads(walk.capsys.readouterr().out)
    assert {rule["rule"] for rule in rules} >= RULES
    for rule in rules:
        assert rule["verdict"] == ("no" if rule["reasons"] else "yes")
        assert rule["rule"] in walk.said[line]
        for reason in rule["reasons"]:
            assert reason["do"] == text_of(reason["code"]).do
            assert reason["do"] in walk.said[line]


def _look_at_the_audit(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text("utf-8").splitlines()]
    told = [(line["event"], tuple(line.get("codes", ()))) for line in lines if "event" in line]
    expected = [
        ("order-seen", ()),
        ("order-refused", ("CONSENT_UNKNOWN",)),
        ("operator-held", ("HOSPITAL_HELD",)),
        ("instruction-refused", ("POLICY_REVOKED",)),
    ]
    found = [entry for entry in told if entry in expected]
    assert found == expected, told
    text = (folder / "audit.jsonl").read_text("utf-8")
    for event, codes in expected:
        for word in (event, *codes):
            assert f"`{word}`" in README, "the page names what the file holds"
            assert word in text
