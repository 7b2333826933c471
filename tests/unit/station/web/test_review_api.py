"""`pht-station review` against the API it asks, over a real queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from local_api_kit import served_home
from review_kit import PENDING, Standstill, asked, review, standing_still
from station_kit import StationKit

from policies.console import run
from policies.errors import ExitCode
from policies.wire.instructions import Kind
from station.audit.events import AuditEvent
from station.cli import app, reaching
from station.egress.review.reviews import ReviewState
from station.runs.review_desk import ReviewDesk
from station.web.api import create_api
from station.web.reviews_api import add_review_routes


@pytest.fixture(scope="module")
def standstill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    with standing_still(tmp_path_factory.mktemp("review-api"), people=2) as made:
        yield made


@pytest.fixture
def kit(standstill: tuple[Standstill, bytes]) -> Iterator[StationKit]:
    with standstill[0].going_on() as kit:
        yield kit


@pytest.fixture
def envelope(standstill: tuple[Standstill, bytes]) -> bytes:
    """The order whose answer waits."""
    return standstill[1]


@pytest.fixture
def home(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A station's folder as far as the command line looks, with its API behind the socket."""
    monkeypatch.setenv("COLUMNS", "250")
    types(monkeypatch, "anna")
    api = create_api(None, "t" * 64)  # type: ignore[arg-type]
    add_review_routes(api, ReviewDesk(kit.reviewing, kit.releases, kit.audit))
    with served_home(api, "t" * 64) as folder:
        yield folder


def types(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Who sits at the terminal."""
    monkeypatch.setattr("station.cli.review.operator_name", lambda: name)


def said(home: Path, *words: str) -> list[str]:
    return ["review", *words, "--home", str(home)]


def test_list_says_what_waits_until_when(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, said(home, "list")) == ExitCode.OK
    shown = capsys.readouterr().out
    for text in ("cxr-classification v1", "train", "waiting", "nobody", "2026-11-22"):
        assert text in shown
    assert run(app, [*said(home, "list"), "--json"]) == ExitCode.OK
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["number"], row["state"], row["people"], row["words"]) == (1, "waiting", 2, [])


def test_show_says_what_would_leave(
    kit: StationKit, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [*said(home, "show", "1"), "--picture", str(tmp_path / "a.svg")]) == ExitCode.OK
    shown = capsys.readouterr().out
    found = review(kit)
    for text in (
        "loss",
        "0.001",
        "layer.weight",
        "float32",
        "4x3",
        "bits at most" if "kbit" not in shown else "kbit at most",
        str(found.arrays_digest),
        found.document_digest,
        "rounded (of 23 patients",
        "a.svg",
    ):
        assert text in shown, text
    picture = ET.fromstring((tmp_path / "a.svg").read_bytes())  # noqa: S314 - our own
    assert any("layer" in (text.text or "") for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    assert AuditEvent.REVIEW_SHOWN.value in kit.events()
    # It is not written over.
    assert run(app, [*said(home, "show", "1"), "--picture", str(tmp_path / "a.svg")]) == ExitCode.STORAGE


def test_two_people_release_it(
    kit: StationKit, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, said(home, "release", "1")) == ExitCode.OK
    assert "1 more person has to release it" in capsys.readouterr().out
    assert run(app, said(home, "release", "1")) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "anna has released it already" in told
    assert "2 different people" in told
    types(monkeypatch, "bert")
    assert run(app, said(home, "release", "1")) == ExitCode.OK
    assert "anna bert" in capsys.readouterr().out
    assert review(kit).state is ReviewState.RELEASED
    assert run(app, said(home, "show", "1")) == ExitCode.OK
    assert "waits no longer" in capsys.readouterr().out


def test_one_person_withholds_it_with_a_reason(
    kit: StationKit, envelope: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, said(home, "withhold", "1")) == ExitCode.USAGE
    assert run(app, [*said(home, "withhold", "1"), "--reason", "it shows a name"]) == ExitCode.OK
    assert "REVIEW_WITHHELD" in capsys.readouterr().out
    assert run(app, said(home, "list")) == ExitCode.OK
    assert "REVIEW_WITHHELD" not in capsys.readouterr().out
    assert run(app, [*said(home, "list"), "--all"]) == ExitCode.OK
    assert "REVIEW_WITHHELD" in capsys.readouterr().out
    assert run(app, said(home, "show", "1")) == ExitCode.OK
    assert "it shows a name" in capsys.readouterr().out
    assert asked(kit, envelope) == ("withheld", "REVIEW_WITHHELD")


@pytest.mark.parametrize("words", [("show",), ("release",), ("withhold", "--reason", "x")])
def test_what_is_not_there_is_said_to_be(home: Path, words: tuple[str, ...]) -> None:
    name, *rest = words
    assert run(app, [*said(home, name, "7"), *rest]) == ExitCode.NOT_FOUND


def test_the_round_before_is_compared_with(
    kit: StationKit, envelope: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("anna", "bert"):
        kit.reviewing.release(1, name)
    # The same train again, a step that is twice as long in the same direction.
    assert asked(kit, envelope, Kind.TRAIN, 2) == PENDING
    assert run(app, said(home, "show", "2")) == ExitCode.OK
    assert "From the release of the round before: distance" in capsys.readouterr().out
    assert run(app, [*said(home, "show", "2"), "--json"]) == ExitCode.OK
    difference = json.loads(capsys.readouterr().out)["payload"]["difference"]
    assert difference["cosine"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("login", "sudo", "name"),
    [("1001\n", "eve", "by-login"), ("4294967295\n", "eve", "eve"), ("0\n", "root", ""), ("", "", "")],
)
def test_who_became_root_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, login: str, sudo: str, name: str
) -> None:
    class Entry:
        pw_name = "by-login"

    (tmp_path / "loginuid").write_text(login)
    monkeypatch.setattr(reaching, "LOGIN", tmp_path / "loginuid")
    monkeypatch.setattr("pwd.getpwuid", lambda _: Entry)
    monkeypatch.setenv("SUDO_USER", sudo)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert reaching.operator_name() == (name or "root")
    # Who is not root is who he is, whatever the environment says.
    monkeypatch.setattr("os.geteuid", lambda: 1002)
    assert reaching.operator_name() == "root"
