"""How the hospital's register is to be read; the station's settings file fills it."""

from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from policies.documents import StrictModel


class ConsentRules(StrictModel):
    """How the register is to be read.

    Attributes:
        timezone: where the hospital's days begin: what ends on a birthday ends at this midnight.
        registry_asked_apart: whether the supply to the registry is a question of its own.
        codes_file: what codes and identifier systems of FHIR mean here; without it FHIR is not imported.
    """

    timezone: str = "UTC"
    registry_asked_apart: bool = False
    codes_file: Path | None = None

    def today(self, now: datetime) -> date:
        """Return the day it is at the hospital."""
        return now.astimezone(UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)).date()
