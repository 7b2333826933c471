"""station.toml: the example is the model, mistakes are named, and rules only narrow."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import station.settings
from policies.errors import ExitCode, NotFoundError, SettingsError
from policies.manifest import TrainKind
from policies.policy import ConsentMode
from station.settings import StationSettings, example, load_settings, parse_settings
from station.settings.text import key_lines, literal, render

EXAMPLE = Path(station.settings.__file__).with_name("settings.example.toml").read_text(encoding="utf-8")


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str | None, bool]]:
    for name, info in model.model_fields.items():
        parts = [part for part in (info.annotation, *get_args(info.annotation)) if isinstance(part, type)]
        inner = [part for part in parts if issubclass(part, BaseModel)]
        yield name, info.description or (inner[0].__doc__ if inner else None), bool(inner)
        for part in inner:
            yield from fields(part)


def problem(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, environment)
    assert caught.value.exit_code is ExitCode.DOCUMENT
    return caught.value.message


def test_the_example_is_the_model_written_out() -> None:
    assert render(example()) == EXAMPLE, "regenerate with: render(example())"
    assert parse_settings(EXAMPLE) == example()


def test_every_key_is_described_and_stands_in_the_example() -> None:
    for name, description, is_section in fields(StationSettings):
        assert description, f"{name} has no description"
        assert (f"[{name}]" in EXAMPLE) if is_section else (f"{name} = " in EXAMPLE), (
            f"{name} is not in the example"
        )


def test_what_is_rendered_is_read_back() -> None:
    odd = example().model_copy(update={"name": "b"})
    odd = odd.model_copy(
        update={
            "collections": (
                odd.collections[0].model_copy(update={"legal_ground": 'a "quoted" \\ ground, é\n'}),
            )
        }
    )
    assert parse_settings(render(odd)) == odd


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cpus = 4.0", "cpu = 4.0", "ceilings.cpu is not a known key"),
        ('marking = "patient"', "", "collections.0.marking is missing"),
        ("memory_mib = 16384", "memory_mib = 1", "ceilings.memory_mib"),
        ('separation = "users"', 'separation = "nearly"', "services.separation"),
        ('launcher_user = "pht-launcher"', 'launcher_user = "pht-compute"', "three different users"),
        ('launcher_user = "pht-launcher"', 'launcher_user = "root"', "none of them root"),
        (
            "https://orchestrator.example.org/mirror",
            "http://orchestrator.example.org",
            "orchestrator.mirror_url",
        ),
        ("Europe/Amsterdam", "Europe/Atlantis", "not a time zone"),
        ('["22:00", "06:00"]', '["25:00", "06:00"]', "hospital.quiet_hours"),
        ('["22:00", "06:00"]', '["06:00", "06:00"]', "says nothing"),
        ('countries = ["NL", "BE", "DE"]', "countries = []", "collections.0.countries"),
        ('consent_mode = "opt-in"', 'consent_mode = "presumed"', "collections.0.consent_mode"),
        ("consent_max_age_days = 7", "consent_max_age_days = 0", "hospital.consent_max_age_days"),
        ("cpus = 4.0", "cpus = nan", "no text, number"),
        ("cpus = 4.0", "cpus = 2026-01-01", "no text, number"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    assert message in problem(EXAMPLE.replace(old, new))


def test_a_mistake_is_named_with_its_line() -> None:
    text = EXAMPLE.replace("cpus = 4.0", "cpu = 4.0")
    line = text.splitlines().index("cpu = 4.0") + 1
    assert f"line {line}: ceilings.cpu is not a known key" in problem(text)
    text = EXAMPLE.replace("purposes = [", "purpose = [")
    line = next(number for number, row in enumerate(text.splitlines(), 1) if row.startswith("purpose = "))
    assert f"line {line}: collections.0.purpose is not a known key" in problem(text)


@pytest.mark.parametrize(
    "key",
    [
        "operator_approval",
        "consent_max_age_days",
        "memory_mib",
        "cpus",
        "separation",
        "consent_mode",
        "marking",
    ],
)
def test_what_decides_has_no_default(key: str) -> None:
    text = "\n".join(line for line in EXAMPLE.splitlines() if not line.startswith(f"{key} = "))
    assert f"{key} is missing" in problem(text)


@pytest.mark.parametrize(
    ("mode", "keys", "message"),
    [
        ("opt-out", (), "opt-out needs opt_out_ground"),
        ("opt-out", ('opt_out_ground = "wgbo-7-458-1-a"',), "opt-out needs opt_out_ground"),
        ("opt-out", ('opt_out_review = "METC 2026-001"',), "opt-out needs opt_out_ground"),
        ("opt-out", ('opt_out_ground = "law"', 'opt_out_review = "METC 2026-001"'), "opt_out_ground"),
        ("opt-in", ('opt_out_review = "METC 2026-001"',), "stand with opt-out only"),
        ("opt-out", ('opt_out_ground = "wgbo-7-458-1-b"', 'opt_out_review = "METC 2026-001"'), None),
    ],
)
def test_opt_out_names_its_ground_and_its_review(
    mode: str, keys: tuple[str, ...], message: str | None
) -> None:
    text = EXAMPLE.replace('consent_mode = "opt-in"', "\n".join((f'consent_mode = "{mode}"', *keys)))
    if message is None:
        assert parse_settings(text).collections[0].consent_mode is ConsentMode.OPT_OUT
    else:
        assert message in problem(text)


def test_a_station_that_offers_nothing_or_something_twice_is_refused() -> None:
    assert "collections" in problem(EXAMPLE[: EXAMPLE.index("[[collections]]")])
    collection = EXAMPLE[EXAMPLE.index("[[collections]]") :]
    assert "a name stands twice" in problem(EXAMPLE + collection)


def test_broken_toml_and_a_missing_file_say_what_to_do(tmp_path: Path) -> None:
    assert "not valid TOML" in problem("name = ")
    with pytest.raises(NotFoundError) as caught:
        load_settings(tmp_path)
    assert "pht-station init" in caught.value.hint
    (tmp_path / "station.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError):
        load_settings(tmp_path)


def test_the_environment_overrides_plain_keys_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "station.toml").write_text(EXAMPLE)
    settings = load_settings(
        tmp_path,
        {
            "PHT_STATION_NAME": "hospital-b",
            "PHT_STATION_CEILINGS_CPUS": "2",
            "PHT_STATION_ENGINE_SOCKET": "/run/user/1000/docker.sock",
            "OTHER": "x",
        },
    )
    assert (settings.name, settings.ceilings.cpus) == ("hospital-b", 2.0)
    assert settings.engine.socket == "/run/user/1000/docker.sock"
    assert "PHT_STATION_CEILINGS_CPU" in problem(EXAMPLE, {"PHT_STATION_CEILINGS_CPU": "2"})
    assert "PHT_STATION_COLLECTIONS" in problem(EXAMPLE, {"PHT_STATION_COLLECTIONS": "[]"})


@pytest.mark.parametrize(
    ("clock", "quiet"),
    [("20:59", False), ("21:00", True), ("23:59", True), ("00:00", True), ("04:59", True), ("05:00", False)],
)
def test_quiet_hours_are_local_and_pass_midnight(clock: str, quiet: bool) -> None:
    hour, minute = map(int, clock.split(":"))
    # 22:00 in Amsterdam in winter is 21:00 UTC.
    assert example().quiet(datetime(2026, 11, 22, hour, minute, tzinfo=UTC)) is quiet


@pytest.mark.parametrize(
    ("approval", "kinds"),
    [("always", set(TrainKind)), ("training", {TrainKind.TRAINING}), ("never", set())],
)
def test_which_trains_wait_for_the_operator(approval: str, kinds: set[TrainKind]) -> None:
    settings = parse_settings(
        EXAMPLE.replace('operator_approval = "training"', f'operator_approval = "{approval}"')
    )
    assert {kind for kind in TrainKind if settings.needs_operator(kind)} == kinds


def test_the_rules_for_admission_say_what_the_file_says() -> None:
    settings = example()
    rules = settings.hospital_rules(datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert rules.station == "hospital-a"
    assert (rules.memory_mib, rules.cpus, rules.quiet) == (16_384, 4.0, False)
    assert rules.consent_limit == settings.consent_limit == timedelta(days=7)
    offer = rules.collections["chest-radiographs"]
    assert offer.marking == "patient"
    assert offer.countries == {"NL", "BE", "DE"}
    assert settings.consent_modes == {"chest-radiographs": ConsentMode.OPT_IN}
    assert settings.collection("others") is None


def test_paths_lie_under_the_home_unless_they_are_absolute() -> None:
    assert example().path(Path("/srv/station"), "ca.pem") == Path("/srv/station/ca.pem")
    assert example().path(Path("/srv/station"), "/etc/ca.pem") == Path("/etc/ca.pem")


@given(st.text())
def test_any_text_is_settings_or_a_settings_error(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_settings(text)
    assert isinstance(key_lines(text), dict)
    literal(text)
