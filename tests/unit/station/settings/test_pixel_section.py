"""The section of station.toml about pixels says what the inspection takes, which compute never loads."""

from station.pseudonymisation.pixels.settings import PixelSettings
from station.settings.pixels import PixelSection


def test_the_section_is_the_inspections_own_settings() -> None:
    assert PixelSection.model_json_schema()["properties"] == PixelSettings.model_json_schema()["properties"]
    assert PixelSettings.model_validate(PixelSection().model_dump()) == PixelSettings()
