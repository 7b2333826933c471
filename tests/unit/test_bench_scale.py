"""The bench of scale says before it begins what there is no room for, and keeps what it found when a scene fails."""

import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from orchestrator.initialise import initialise
from orchestrator.settings import parse_settings
from tests.bench import bench_scale, scale_room
from tests.bench.scale_floor import Bare, bare_tls_s
from tests.bench.scale_report import Report
from tests.bench.scale_room import Need, Room, need_of
from tests.bench.scale_scenes import Bench


class _Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    report = Report(Console(file=io.StringIO(), width=160), tmp_path / "found.json")
    room = Room(tmp_path, tmp_path, limit_s=3600)
    return Bench(report, room, tmp_path, tmp_path, [3, 10], [0.1, 1], 3)


SETTINGS = parse_settings({"front": {"hosts": ["localhost"], "port": 8443}})


def said(bench: Bench) -> str:
    file = bench.report.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten GB of disk and of memory."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Disk(10**11, 0, 10**10))
    monkeypatch.setattr(scale_room, "available_mb", lambda: 10_000.0)
    monkeypatch.setattr(scale_room, "_in_memory", lambda _: True)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("need", "word"),
    [
        (Need(disk_mb=8_001), "8.0 GB of disk, 8.0 can be had"),
        (Need(memory_mb=8_001), "8.0 GB of memory, 8.0 can be had"),
        (Need(seconds=3_601), "about 3601 s"),
    ],
)
def test_what_is_lacking_is_named(bench: Bench, need: Need, word: str) -> None:
    assert word in str(bench.room.lacking(need))
    assert not bench.room.lacking(Need(7_999, 7_999, 3_000))


@pytest.mark.usefixtures("machine")
def test_as_many_stations_as_there_is_room_for(bench: Bench) -> None:
    # 16 models of 400 MB are 6.4 GB, 21 are 8.4.
    assert bench.room.most((15, 10, 3), 400.0, 3) == 10
    assert bench.room.most((100,), 400.0, 3) is None


@pytest.mark.usefixtures("machine")
def test_a_scene_leaves_time_to_the_others(bench: Bench) -> None:
    assert bench.room.lacking(Need(seconds=1_000)) is None
    bench.room.share(0.25)
    assert "about 1000 s" in str(bench.room.lacking(Need(seconds=1_000)))
    bench.room.share(1.0)
    assert bench.room.lacking(Need(seconds=1_000)) is None


def test_models_at_the_stations_count_where_their_folder_lies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Disk(10**11, 0, 10**10))
    monkeypatch.setattr(scale_room, "available_mb", lambda: 100_000.0)
    need = need_of(10, 400.0, 3)
    monkeypatch.setattr(scale_room, "_in_memory", lambda _: True)
    assert bench.room.lacking(need) is None
    monkeypatch.setattr(scale_room, "_in_memory", lambda _: False)
    assert "of disk" in str(bench.room.lacking(need))


def test_a_scene_that_fails_keeps_what_it_found_and_the_next_goes_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(given: Bench) -> None:
        given.report.ratio("found before", 1.5)
        raise RuntimeError("the order failed")

    monkeypatch.setitem(bench_scale.SCENES, "half", ("a scene that fails", half))
    monkeypatch.setitem(
        bench_scale.SCENES, "whole", ("another", lambda given: given.report.ratio("found after", 2.5))
    )
    bench_scale._scene(bench, "half")
    bench_scale._scene(bench, "whole")
    found = json.loads((tmp_path / "found.json").read_text())["scenes"]
    assert found["half"]["ratios"] == {"found before": 1.5}
    assert found["half"]["failed"] == "RuntimeError: the order failed"
    assert found["whole"]["ratios"] == {"found after": 2.5}
    assert "found before" in said(bench)
    assert "the order failed" in said(bench)


def test_bare_tls_moves_every_model_both_ways_and_leaves_nothing(tmp_path: Path) -> None:
    home = initialise(tmp_path / "orchestrator", SETTINGS)
    served, elsewhere = tmp_path / "served", tmp_path / "elsewhere"
    served.mkdir()
    elsewhere.mkdir()
    tls = (home.ca_certificate, home.server_certificate, home.server_key)
    assert bare_tls_s(Bare(*tls, served, elsewhere, 3_000_001, 3)) > 0
    assert list(served.iterdir()) == list(elsewhere.iterdir()) == []
    # Whoever is not that authority's is not spoken to.
    other = initialise(tmp_path / "other", SETTINGS)
    with pytest.raises(RuntimeError):
        bare_tls_s(Bare(other.ca_certificate, *tls[1:], served, elsewhere, 1000, 1))
