"""Where the orchestrator is: from the command line, or from a file beside the token."""

from pathlib import Path

import pytest

from policies.errors import NotFoundError, PhtError, SettingsError, UsageError
from train_images.tool.connection import Connection, choose_connection


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_command_line_does_without_a_file() -> None:
    found = choose_connection("https://o:1", Path("t"), Path("ca"), None)
    assert found == Connection("https://o:1", Path("t"), Path("ca"))


def test_what_is_in_neither_is_named() -> None:
    with pytest.raises(UsageError, match="--token-file, --ca: not given"):
        choose_connection("https://o:1", None, None, None)


def test_the_file_fills_in_and_its_paths_lie_beside_it(tmp_path: Path) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text('to = "https://o:1"\ntoken_file = "my.token"\nca = "/etc/ca.pem"\n')
    assert choose_connection(None, None, None, profile) == Connection(
        "https://o:1", tmp_path / "my.token", Path("/etc/ca.pem")
    )
    assert choose_connection("https://o:2", None, None, profile).to == "https://o:2"


def test_the_file_in_its_usual_place_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".config"
    folder.mkdir(parents=True)
    (folder / "pht-train.toml").write_text('to = "https://o:1"\ntoken_file = "t"\nca = "c"\n')
    assert choose_connection(None, None, None, None).token_file == folder / "t"


@pytest.mark.parametrize("text", ["to = 1", "tokn_file = 'x'", "to = ", "to = 2026-01-01"])
def test_a_wrong_file_is_said(tmp_path: Path, text: str) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(text)
    with pytest.raises(PhtError, match=r"p\.toml"):
        choose_connection(None, None, None, profile)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        choose_connection(None, None, None, tmp_path / "p.toml")


@pytest.mark.parametrize("token", [b"", b"  \n", b"two\nlines", b"\xff\xfe"])
def test_a_token_that_is_none_is_not_sent(tmp_path: Path, token: bytes) -> None:
    (tmp_path / "t").write_bytes(token)
    (tmp_path / "ca").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no token"):
        Connection("https://o:1", tmp_path / "t", tmp_path / "ca").open()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="certificate authority"):
        Connection("https://o:1", tmp_path / "t", tmp_path / "ca").open()
    (tmp_path / "ca").write_bytes(b"")
    with pytest.raises(NotFoundError, match="token"):
        Connection("https://o:1", tmp_path / "t", tmp_path / "ca").open()


def test_unreadable_toml_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError):
        choose_connection(None, None, None, tmp_path / "p.toml")
