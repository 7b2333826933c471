"""The station's one settings file, `station.toml`, and the hospital's own rules in it.

Settings can only narrow what a policy grants. There is no insecure default: what decides who gets what data must be
written down, and unknown keys are errors that name the key and the line. Secrets are files of their own; the file
holds paths at most. `settings.example.toml` lists every key and is tested against the model.

A plain key is read from the file, then from ``PHT_STATION_<SECTION>_<KEY>`` (top-level keys: ``PHT_STATION_<KEY>``).
"""

from station.settings.consent import ConsentSettings
from station.settings.dicom import PacsSettings, ReceiverSettings
from station.settings.example import example
from station.settings.loading import SETTINGS_FILE, load_settings, parse_settings
from station.settings.model import StationSettings
from station.settings.sections import (
    CeilingSettings,
    CollectionSettings,
    EngineSettings,
    HospitalSettings,
    OrchestratorSettings,
    PollingSettings,
    PseudonymSettings,
    ServiceSettings,
)

__all__ = [
    "SETTINGS_FILE",
    "CeilingSettings",
    "CollectionSettings",
    "ConsentSettings",
    "EngineSettings",
    "HospitalSettings",
    "OrchestratorSettings",
    "PacsSettings",
    "PollingSettings",
    "PseudonymSettings",
    "ReceiverSettings",
    "ServiceSettings",
    "StationSettings",
    "example",
    "load_settings",
    "parse_settings",
]
