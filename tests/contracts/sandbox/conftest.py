from collections.abc import Iterator

import pytest
from sandbox_kit import Station, running_station


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with running_station(tmp_path_factory.mktemp("station")) as made:
        yield made
