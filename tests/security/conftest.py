from collections.abc import Iterator

import pytest
from reply_kit import Liars
from sandbox_kit import Station, running_station
from selftest_kit import Attacked, attacked_station


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station's sandbox over the real engine, with a train that runs what a test sends it."""
    with running_station(tmp_path_factory.mktemp("attacked")) as made:
        yield made


@pytest.fixture(scope="session")
def attacked() -> Iterator[Attacked]:
    """The same sandbox with the selftest's hostile train, whose attacks a test runs by name."""
    with attacked_station() as made:
        yield made


@pytest.fixture(scope="session")
def liars(attacked: Attacked) -> Iterator[Liars]:
    """Hostile trains for the attacks on the socket between station and train."""
    with Liars(attacked) as made:
        yield made
