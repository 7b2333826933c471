"""A request as people type it: `pht-train request` at one desk, `pht-board requests` at the other, an orchestrator between them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from orchestrator_site import Board, Site, send_bundle, site, station_keys
from request_documents import left_unsigned, new_signer, request_signed, request_yaml
from tool_kit import Tool, make_bundle

from orchestrator.registry.access import Role
from orchestrator.storage import RequestRow
from policies.cli import app as board_app
from policies.console import run
from policies.errors import ExitCode


@dataclass
class Desks:
    place: Site
    tool: Tool
    capsys: pytest.CaptureFixture[str]
    folder: Path

    def connection(self, role: Role, name: str) -> tuple[object, ...]:
        token = self.folder / f"{name}.token"
        token.write_text(self.place.services.access.new_token(role, name))
        return ("--to", self.place.url, "--token-file", token, "--ca", self.place.ca)

    def board(self, *arguments: object, code: ExitCode = ExitCode.OK) -> str:
        found = run(board_app, [str(argument) for argument in ("requests", *arguments)])
        captured = self.capsys.readouterr()
        assert found == code, captured.err
        return captured.out + captured.err


@pytest.fixture
def desks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desks]:
    board = Board.found(tmp_path)
    board.set_register(station_keys())
    with site(tmp_path, board.root) as place:
        yield Desks(place, Tool(capsys), capsys, tmp_path)


def _filled(path: Path) -> Path:
    text = path.read_text("utf-8")
    lines = [
        line.split("REPLACE:")[0].rstrip("'\" ") + " " + _ANSWERS[line.split(":")[0].strip()]
        if "REPLACE:" in line
        else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


_ANSWERS = {
    "code": "method-development",
    "statement": "To see whether it works.",
    "benefit": "All.",
    "requester_class": "participant",
    "country": "NL",
}


def test_a_request_goes_from_one_desk_to_the_other_and_back(desks: Desks) -> None:
    tool, folder = desks.tool, desks.folder
    (folder / "bundle").mkdir()
    make_bundle(folder / "bundle")
    alice, board = desks.connection(Role.RESEARCHER, "alice"), desks.connection(Role.BOARD, "board")
    tool("key", "new", folder / "alice.pem", "--no-passphrase")
    request = folder / "request.yaml"
    tool(
        "request",
        "new",
        request,
        "--bundle",
        folder / "bundle",
        "--key",
        folder / "alice.pub",
        "--collections",
        "thorax",
    )
    key = ("--key", folder / "alice.pem")
    assert "line" in tool.error(ExitCode.DOCUMENT, "request", "send", request, *key, *alice)
    _filled(request)
    assert "--key" in tool.error(ExitCode.USAGE, "request", "send", request, *alice)
    assert "no trivial 1.0.0" in tool.error(ExitCode.USAGE, "request", "send", request, *key, *alice)
    tool("submit", folder / "bundle", *alice)
    sent = tool("request", "send", request, *key, *alice).strip()
    again = tool("request", "send", request, *key, *alice).strip()
    assert sent == again, "the same document is the same request"

    assert sent in desks.board("list", *board, "--state", "submitted")
    shown = desks.board("show", sent, *board)
    for part in (
        "trivial 1.0.0",
        "To see whether it works.",
        "A Hospital (participant, NL)",
        "whichever have them",
        "signature: by this key, for alice",
    ):
        assert part in shown
    assert "in-review" in desks.board("review", sent, *board, "--text", "On Thursday.")
    refused = desks.board(
        "decline", sent, *board, "--reason", "purpose", "--text", "x" * 501, code=ExitCode.DOCUMENT
    )
    assert "text" in refused
    assert "declined" in desks.board("decline", sent, *board, "--reason", "purpose", "--text", "For whom?")

    found: Any = tool.json("request", "show", sent, *alice)
    assert [step["after"] for step in found["history"]] == ["submitted", "in-review", "declined"]
    assert "(purpose): For whom?" in tool("request", "show", sent, *alice)
    assert "declined" in tool("request", "list", *alice)
    assert "withdrawn" in tool("request", "withdraw", sent, *alice)
    assert "withdrawn" in tool.error(ExitCode.USAGE, "request", "withdraw", sent, *alice)
    again = request.write_text(request.read_text().replace("All.", "Everyone.")) and tool(
        "request", "send", request, *key, *alice
    )
    assert "withdrawn" in tool("request", "withdraw", again.strip(), *alice, "--text", "Later.")
    assert json.loads(desks.board("list", *board, "--json", "--state", "submitted")) == []


def test_the_board_is_told_of_two_who_claim_one_key(desks: Desks) -> None:

    board = desks.connection(Role.BOARD, "board")
    send_bundle(desks.place.client(Role.RESEARCHER, "alice"), desks.folder)
    first = left_unsigned(desks.place.services, "alice", "ab" * 32)
    assert "NOT SIGNED" in desks.board("list", *board)
    left_unsigned(desks.place.services, "mallory", "ab" * 32)
    assert desks.board("list", *board).count("CONTESTED") == 2
    shown = desks.board("show", first, *board)
    assert "decline the other" in shown
    assert "none: it is of an earlier version" in shown
    told = desks.tool("request", "show", first, *desks.connection(Role.RESEARCHER, "alice"))
    assert "CONTESTED" not in told


def test_a_key_that_stays_away_from_the_network_signs_for_one_account(desks: Desks) -> None:
    tool, folder = desks.tool, desks.folder
    send_bundle(desks.place.client(Role.RESEARCHER, "alice"), folder)
    alice, mallory = (desks.connection(Role.RESEARCHER, name) for name in ("alice", "mallory"))
    signer = new_signer(folder)
    request, signed = folder / "request.yaml", folder / "request.dsse.json"
    request.write_bytes(request_yaml(signer.public_hex))
    new_signer(folder, "other")
    wrong = tool.error(
        ExitCode.TRUST, "request", "sign", request, signed, "--key", folder / "other.pem", "--as", "alice"
    )
    assert "not the key that the request names" in wrong
    tool("request", "sign", request, signed, "--key", folder / "another.pem", "--as", "alice")
    assert "another account" in tool.error(ExitCode.USAGE, "request", "send", signed, *mallory)
    sent = tool("request", "send", signed, *alice).strip()
    assert "by this key, for alice" in tool("request", "show", sent, *alice)


def test_the_board_sees_that_the_orchestrator_shows_another_request_than_was_signed(desks: Desks) -> None:
    board = desks.connection(Role.BOARD, "board")
    alice = desks.place.client(Role.RESEARCHER, "alice")
    send_bundle(alice, desks.folder)
    signer = new_signer(desks.folder)
    sent = alice.requests.submit(request_signed(signer)).id
    with desks.place.services.database.transaction() as session:
        row = session.get(RequestRow, sent)
        assert row is not None
        row.document = request_yaml(signer.public_hex, collections=["everything"])
    assert "DOES NOT HOLD" in desks.board("show", sent, *board)


def test_what_a_stranger_wrote_cannot_speak_to_a_terminal(desks: Desks) -> None:

    send_bundle(desks.place.client(Role.RESEARCHER, "mallory"), desks.folder)
    purpose = {
        "code": "method-development",
        "statement": "harmless\x1b[2J\nRequest 0: approved by all",
        "benefit": "\u202eevil",
    }
    sent = desks.place.client(Role.RESEARCHER, "mallory").requests.submit(
        request_signed(new_signer(desks.folder), "mallory", purpose=purpose)
    )
    shown = desks.board("show", sent.id, *desks.connection(Role.BOARD, "board"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    # A request's own line names its id, which may begin with any digit.
    assert not [line for line in shown.splitlines() if line.startswith("Request 0:")]


def test_a_name_that_is_no_requests_goes_nowhere(desks: Desks) -> None:
    board = desks.connection(Role.BOARD, "board")
    for name in ("../audit", "0" * 31, "x" * 32, ""):
        assert "32 letters" in desks.board("show", name, *board, code=ExitCode.USAGE)
    assert "no such request" in desks.board("show", "0" * 32, *board, code=ExitCode.NOT_FOUND)
