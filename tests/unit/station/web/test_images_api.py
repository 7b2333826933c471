"""`pht-station images` against the API it asks, over a real layer store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images_kit import ImageStation, Shelf, layer_of
from local_api_kit import served_home

from policies.console import run
from policies.errors import ExitCode
from station.cli import app
from station.images.desk import ImagesDesk
from station.web.api import create_api
from station.web.images_api import add_image_routes


@pytest.fixture
def station(tmp_path: Path) -> ImageStation:
    made = ImageStation(tmp_path / "layers", Shelf())
    (shelf,) = made.shelves
    for name in ("one", "two"):
        made.store.fetch(shelf.add(layer_of("base"), layer_of(name)))
        made.forward(hours=1)
    return made


@pytest.fixture
def home(station: ImageStation) -> Iterator[Path]:
    """A station's folder as far as the command line looks, with its API behind the socket."""
    nobody: Any = None
    api = create_api(nobody, "t" * 64)
    add_image_routes(
        api, ImagesDesk(station.store, lambda: station.needed, station.quota, lambda: station.now)
    )
    with served_home(api, "t" * 64) as folder:
        yield folder


def test_what_is_there_and_who_needs_it(
    station: ImageStation, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    last, first = (shown.record.config_digest for shown in station.store.images())
    station.needed = {first: ("policy trial v3", "order 0123")}
    assert run(app, ["images", "list", "--home", str(home)]) == ExitCode.OK
    said = capsys.readouterr().out
    for text in (first[7:19], last[7:19], "policy trial v3, order 0123", "nothing", "of 1024 MiB"):
        assert text in said
    station.needed = None
    assert run(app, ["images", "list", "--home", str(home)]) == ExitCode.OK
    assert "not known now" in capsys.readouterr().out
    assert run(app, ["images", "list", "--home", str(home), "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert [image["config_digest"] for image in shown["images"]] == [last, first]


def test_what_nobody_needs_is_thrown_away_when_the_operator_says_so(
    station: ImageStation, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, first = (shown.record.config_digest for shown in station.store.images())
    station.needed = {last: ("policy",)}
    assert run(app, ["images", "gc", "--home", str(home), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["images"] == []
    assert run(app, ["images", "gc", "--unneeded", "--home", str(home), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["images"] == [first]
    ((_, _, actor),) = station.audited
    assert str(actor).startswith("operator:")
    assert run(app, ["images", "gc", "--unneeded", "--home", str(home)]) == ExitCode.OK
    assert "0 images removed" in capsys.readouterr().out
