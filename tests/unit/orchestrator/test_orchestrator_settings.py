from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import (
    Home,
    Settings,
    child_environment,
    load_settings,
    parse_settings,
    render_settings,
)
from policies.errors import NotFoundError, SettingsError

FRONT = {"hosts": ["localhost"], "port": 8443}
README = Path(__file__).parents[3] / "orchestrator" / "README.md"


def test_what_is_rendered_is_read_back(tmp_path: Path) -> None:
    settings = parse_settings(
        {"front": FRONT | {"name": "north", "bind": "127.0.0.1"}, "limits": {"blob_mib": 7}}
    )
    home = Home(tmp_path)
    home.settings_file.write_text(render_settings(settings))
    assert load_settings(home, {}) == settings


def test_the_environment_overrides(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.settings_file.write_text(render_settings(parse_settings({"front": FRONT})))
    found = load_settings(
        home, {"PHT_ORCHESTRATOR_FRONT_PORT": "9443", "PHT_ORCHESTRATOR_FRONT_NAME": "south"}
    )
    assert (found.front.port, found.front.name) == (9443, "south")


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"PHT_ORCHESTRATOR_FRONT_COLOUR": "red"}, "front.colour"),
        ({"PHT_ORCHESTRATOR_BACK_PORT": "1"}, "back"),
        ({"PHT_ORCHESTRATOR_FRONT_PORT": "0"}, "front.port"),
        ({"PHT_ORCHESTRATOR_FRONT_PORT": "many"}, "front.port"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    home = Home(tmp_path)
    home.settings_file.write_text(render_settings(parse_settings({"front": FRONT})))
    with pytest.raises(SettingsError, match=key):
        load_settings(home, environment)


def test_no_home_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as found:
        load_settings(Home(tmp_path), {})
    assert "init" in found.value.hint


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    Home(tmp_path).settings_file.write_text("[front\n")
    with pytest.raises(SettingsError):
        load_settings(Home(tmp_path), {})


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=3))
def test_nothing_but_settings_is_settings(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        parse_settings(values)


def test_every_setting_is_in_the_readme() -> None:
    text = README.read_text("utf-8")
    for section, field in Settings.model_fields.items():
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"`{section}.{key}`" in text


def test_children_get_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHT_TOKEN", "pht_secret")
    environment = child_environment()
    assert "pht_secret" not in environment.values()
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


def test_an_ipv6_host_makes_a_url() -> None:
    assert parse_settings({"front": {"hosts": ["::1"], "port": 1}}).url == "https://[::1]:1"
