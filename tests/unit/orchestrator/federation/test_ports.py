"""A port that is chosen before it is listened on is nobody else's by then."""

import socket
from pathlib import Path

import pytest

from orchestrator.federation import ports


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The lowest port that the kernel gives away, as most kernels are set."""
    (tmp_path / "range").write_text("32768\t60999\n")
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "range")
    return 32768


def test_the_kernel_gives_it_to_nobody_who_asks_for_any(given: int) -> None:
    assert all(1024 < ports.free_port() < given for _ in range(200))


def test_one_that_is_taken_is_not_chosen(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, ports.free_port()))
        taken.listen()
        there, asked = taken.getsockname()[1], []

        def always_there(_below: int) -> int:
            asked.append(there)
            return int(there) - 10_000

        monkeypatch.setattr(ports.secrets, "randbelow", always_there)
        found = ports.free_port()
    assert found != there
    assert len(asked) > 1


def test_none_is_told_twice(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.free_port()
    drawn = iter([first - 10_000, first - 10_000, (first - 10_000 + 1) % 22_000])
    monkeypatch.setattr(ports.secrets, "randbelow", lambda _below: next(drawn, 11_111))
    assert ports.free_port() != first


@pytest.mark.parametrize("said", ["", "no numbers", "1024 65535"])
def test_where_the_kernel_gives_away_all_of_them_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "range").write_text(said)
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "range")
    with socket.socket() as probe:
        probe.bind((ports.LOOPBACK, ports.free_port()))
