from collections.abc import Iterator

import pytest
from sandbox_kit import Station, running_station


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station's sandbox over the real engine, with a train that runs what a test sends it."""
    with running_station(tmp_path_factory.mktemp("attacked")) as made:
        yield made
