"""`pht-board site` as the secretary types it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from board_desk import Desk, publish
from board_kit import PURPOSES, BoardKit
from typer.testing import CliRunner

from policies.cli import app
from policies.errors import ExitCode


@pytest.fixture
def published(drafted: Desk) -> Desk:
    """A board with one policy in force."""
    for name in ("alice", "carol"):
        drafted("sign", drafted / "policy.yaml", "--key", drafted / f"{name}.pem", "--yes")
    (drafted / "purposes.yaml").write_bytes(PURPOSES.read_bytes())
    for name in ("alice", "carol"):
        drafted("purposes", drafted / "purposes.yaml", "--key", drafted / f"{name}.pem", "--yes")
    publish(drafted, drafted / "policy.yaml", drafted / "purposes.yaml")
    return drafted


def test_it_writes_what_is_in_force(published: Desk) -> None:
    out = published / "register"
    said = published.json("site", "--repository", published / "repo", "--out", out)
    assert said["studies"] == 1
    page = (out / "nl" / "studies" / "cxr-classification.html").read_text()
    assert "Ziekenhuizen leren samen een computermodel" in page
    # From a mirror too, where the root comes from elsewhere.
    root = published / "repo" / "metadata" / "1.root.json"
    again = published / "again"
    published("site", "-r", published / "mirror", "--root", root, "-o", again, "--documents", "nl")
    assert '<span lang="nl">' in (again / "en" / "index.html").read_text()
    assert "1 policies" in published.out


def test_a_withdrawn_study_is_gone_from_the_next_register(published: Desk) -> None:
    out = published / "register"
    published("site", "-r", published / "repo", "-o", out)
    published(
        "revoke", "cxr-classification", 1, "--reason", "The label was wrong.", "-r", published / "repo",
        "-k", published / "secretary.pem",
    )  # fmt: skip
    publish(published)
    published("site", "-r", published / "repo", "-o", out)
    assert not list((out / "nl" / "studies").iterdir())
    assert "The label was wrong." in (out / "en" / "decisions.html").read_text()
    register = json.loads((out / "register.json").read_bytes())
    assert register["studies"] == []
    assert register["withdrawn"]["revoked"][0]["reason"] == "The label was wrong."


def test_what_makes_no_sense_is_said(published: Desk) -> None:
    site = ("site", "-r", published / "repo", "-o", published / "register")
    published(*site, "--contact", "no-equals-sign", code=ExitCode.USAGE)
    published(*site, "--contact", "nowhere=desk@nowhere.example", code=ExitCode.USAGE)
    published(*site, "--documents", "de", code=ExitCode.USAGE)
    assert not (published / "register").exists()


def test_a_state_that_is_stale_makes_no_register(tmp_path: Path) -> None:
    kit = BoardKit.found(tmp_path)
    kit.publish(kit.signed(kit.policy()), now=datetime(2020, 1, 1, tzinfo=UTC))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["site", "--repository", str(kit.repository.folder), "--out", str(out)])
    assert getattr(done.exception, "code", "") == "TRUST_EXPIRED"
    assert not out.exists()
