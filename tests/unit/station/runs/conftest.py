from collections.abc import Iterator
from pathlib import Path

import pytest
from station_kit import StationKit


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    """A station with one policy in force and forty patients."""
    made = StationKit.make(tmp_path)
    yield made
    made.close()
