"""`pht-station releases` against the API it asks: what left, the very bytes of it, and what is kept no longer."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from local_api_kit import served_home
from station_kit import StationKit

from policies.console import run
from policies.documents import digest_of
from policies.errors import ExitCode
from policies.wire.instructions import Kind, Status
from station.cli import app
from station.evidence.collecting import EvidenceCollector
from station.retention import ComputeRetention, ComputeTerms, Places
from station.runs.chains import Chains
from station.runs.desk import StationDesk
from station.web.api import create_api


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = StationKit.make(tmp_path)
    yield made
    made.close()


@pytest.fixture
def home(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("COLUMNS", "250")
    chains = Chains("amstel", kit.database, Ed25519PrivateKey.generate(), kit.clock, kit.paths.work)
    agent: Any = SimpleNamespace(last_contact=None)
    launcher: Any = kit.launcher
    desk = StationDesk(
        kit.settings, kit.gatekeeper, kit.catalogue, kit.runs, kit.warm, kit.releases, kit.audit, chains, launcher, agent,
        EvidenceCollector("amstel", kit.database, chains.identity, kit.paths.trust),
    )  # fmt: skip
    with served_home(create_api(desk, "t" * 64), "t" * 64) as folder:
        yield folder


def said(home: Path, *words: str) -> list[str]:
    return ["releases", *words, "--home", str(home)]


def purged_later(kit: StationKit) -> int:
    """What the station's look at its terms does when the hospital's is over."""
    terms = ComputeTerms(timedelta(days=30), timedelta(days=30), timedelta(days=30))
    places = Places(kit.paths.cohorts, kit.paths.releases, kit.paths.compute / "backups")
    later = kit.releases.list()[-1].recorded + timedelta(days=31)
    return ComputeRetention(kit.database, kit.audit, places, terms, kit.warm.cohorts, lambda: later).look()


def test_everything_that_left_is_listed_shown_and_exported_as_it_left(
    kit: StationKit, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    envelope = kit.ready()
    kit.message(envelope, Kind.TRAIN)
    kit.message(envelope, Kind.EVALUATE)
    trained, evaluated = kit.releases.list()

    assert run(app, said(home, "list")) == ExitCode.OK
    text = capsys.readouterr().out
    assert "train" in text
    assert "evaluate" in text
    assert text.count("here") == 2

    assert run(app, ["releases", "--home", str(home), "--json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)
    first = kit.releases.entry_of(trained)
    assert (rows[0]["reply_digest"], rows[0]["reply_size"], rows[0]["rules_digest"], rows[0]["type"]) == (
        digest_of(trained.reply), len(trained.reply), first.rules_digest, "release",
    )  # fmt: skip
    assert rows[0]["capacity_bits"] == first.capacity_bits
    assert rows[0]["run"]

    assert run(app, said(home, "show", trained.order_digest, "1", "train", "--json")) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == rows[0]

    assert trained.arrays is not None
    out = tmp_path / "out"
    assert run(app, said(home, "export", trained.order_digest, "1", "train", str(out))) == ExitCode.OK
    assert (out / "reply.json").read_bytes() == trained.reply
    assert digest_of((out / "arrays.safetensors").read_bytes()) == trained.arrays_digest
    assert run(app, said(home, "export", trained.order_digest, "1", "train", str(out))) == ExitCode.USAGE
    other = tmp_path / "other"
    assert run(app, said(home, "export", evaluated.order_digest, "1", "evaluate", str(other))) == ExitCode.OK
    assert [path.name for path in other.iterdir()] == ["reply.json"]
    assert (other / "reply.json").read_bytes() == evaluated.reply


def test_an_export_that_fails_takes_nothing_of_others_with_it(
    kit: StationKit, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    envelope = kit.ready()
    kit.message(envelope, Kind.TRAIN)
    (trained,) = kit.releases.list()
    export = said(home, "export", trained.order_digest, "1", "train")
    a_file = tmp_path / "a-file"
    a_file.write_text("somebody's")
    assert run(app, [*export, str(a_file)]) == ExitCode.STORAGE
    assert "a-file cannot be written" in capsys.readouterr().err
    assert a_file.read_text() == "somebody's"
    # A link that leads nowhere is seen when the file is made, and not before.
    out = tmp_path / "out"
    out.mkdir()
    (out / "arrays.safetensors").symlink_to(tmp_path / "nowhere")
    assert run(app, [*export, str(out)]) == ExitCode.STORAGE
    assert [path.name for path in out.iterdir()] == ["arrays.safetensors"]
    assert not (tmp_path / "nowhere").exists()


def test_what_is_kept_no_longer_is_refused_and_never_computed_again(
    kit: StationKit, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    envelope = kit.ready()
    released, _ = kit.message(envelope, Kind.TRAIN)
    asked = len(kit.sandbox.asked)
    assert purged_later(kit) >= 1

    reply, arrays = kit.message(envelope, Kind.TRAIN, attempt=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, "RELEASE_PURGED", None)
    assert len(kit.sandbox.asked) == asked
    assert run(app, said(home, "show", released.order_digest, "1", "train")) == ExitCode.OK
    assert "purged" in capsys.readouterr().out
    out = tmp_path / "out"
    assert run(app, said(home, "export", released.order_digest, "1", "train", str(out))) == ExitCode.REFUSED
    assert "RELEASE_PURGED" in capsys.readouterr().err
    assert list(out.iterdir()) == []
    # The run goes on.
    assert kit.message(envelope, Kind.EVALUATE)[0].status is Status.RELEASED
