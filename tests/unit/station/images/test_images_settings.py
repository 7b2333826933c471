"""The section [images]: what hangs together in it, and what is made of it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from policies.errors import SettingsError
from station.images.making import make_registry
from station.settings.images import ImageSettings

REGISTRY = {"registry_url": "https://registry.example.org", "registry_repository": "pht/trains"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": []},
        {"sources": ["registry"]},
        {"sources": ["orchestrator", "registry"], "registry_url": "https://registry.example.org"},
        {"sources": ["orchestrator", "orchestrator"]},
        {"sources": ["docker-hub"]},
        {**REGISTRY, "registry_url": "http://registry.example.org"},
        {**REGISTRY, "registry_repository": "../../v2/other"},
        {**REGISTRY, "registry_repository": "pht/trains?x=y"},
        {"registry_hosts": ["https://cdn.example.org"]},
        {"registry_hosts": ["cdn.example.org/path"]},
        {"quota_mib": 0},
        {"free_mib": -1},
        {"keep_days": -1},
        {"other": 1},
    ],
)
def test_what_does_not_hang_together_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageSettings.model_validate(wrong)


def test_a_registry_can_be_asked_first() -> None:
    found = ImageSettings.model_validate({**REGISTRY, "sources": ["registry", "orchestrator"]})
    assert found.sources == ("registry", "orchestrator")
    assert ImageSettings().sources == ("orchestrator",)


@pytest.mark.parametrize("missing", ["registry_ca_file", "registry_credentials_file"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    settings = ImageSettings.model_validate({**REGISTRY, missing: "not-there"})
    with pytest.raises(SettingsError, match=missing):
        make_registry(settings, tmp_path, proxy=None, announce=lambda: None)
