"""A station whose hospital names a folder for predictions: it starts and says so, and refuses one that lies in its own home."""

from pathlib import Path

from station_programs import Installed


def named(station: Installed, folder: Path) -> None:
    settings = station.home / "station.toml"
    text = settings.read_text()
    section = text.index("[predictions]")
    settings.write_text(text[:section] + text[section:].replace("# folder = ...", f'folder = "{folder}"', 1))


def test_a_folder_outside_is_taken_and_one_inside_is_refused(station: Installed) -> None:
    outside = station.folder / "predictions"
    outside.mkdir()
    named(station, outside)
    server = station.serve()
    assert station.ask("predictions") == {"folder": str(outside), "runs": []}
    assert server.stop() == 0
    settings = station.home / "station.toml"
    settings.write_text(settings.read_text().replace(str(outside), str(station.home / "handover")))
    said = station.run("serve", expect=6)
    assert "the service compute did not start" in said
    log = (station.home / "logs" / "compute.log").read_text()
    assert "predictions.folder: lies in the station's home, or around it" in log
    assert station.services() == {}
