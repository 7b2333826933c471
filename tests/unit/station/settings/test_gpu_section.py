"""[gpu] of station.toml: devices by UUID and nothing else, none unless they stand there, and the launcher told of all of it."""

import os
from pathlib import Path

import pytest

from policies.errors import SettingsError
from station.sandbox.gpu.model import GpuTerms
from station.sandbox_settings import launcher_settings
from station.settings import example, parse_settings
from station.settings.text import render

UUIDS = ("GPU-11111111-1111-1111-1111-111111111111", "MIG-44444444-4444-4444-4444-444444444441")


def text(section: str) -> str:
    whole = render(example()).replace('separation = "users"', 'separation = "none"')
    before, _, after = whole.partition("[gpu]")
    return f"{before}[gpu]\n{section}\n[ceilings]{after.partition('[ceilings]')[2]}"


def test_none_unless_they_stand_there() -> None:
    found = parse_settings(text(""), {}).gpu
    assert (found.devices, found.scrub, found.idle_s) == ((), True, 900)


@pytest.mark.parametrize(
    "device", ["0", "GPU-1", "GPU-11111111-1111-1111-1111-11111111111g", "ALL", "all,all", ""]
)
def test_a_device_is_named_by_its_uuid(device: str) -> None:
    with pytest.raises(SettingsError, match="gpu"):
        parse_settings(text(f'devices = ["{device}"]'), {})


def test_the_launcher_is_told(tmp_path: Path) -> None:
    listed = ", ".join(f'"{each}"' for each in UUIDS)
    (tmp_path / "station.toml").write_text(text(f"devices = [{listed}]\nscrub = false"))
    told = launcher_settings(tmp_path)
    assert told.gpu == GpuTerms(devices=UUIDS, scrub=False)
    assert told.compute_uid == os.getuid()
