from collections.abc import Iterator

import pytest
from engine_kit import ENGINES, Engine, EngineRoom, engine_room
from sandbox_kit import Station, running_station


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRoom]:
    with engine_room(tmp_path_factory.mktemp("engines")) as made:
        yield made


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, room: EngineRoom) -> Engine:
    """Every engine in turn; those that are not this machine's Docker are started when they are first needed."""
    return room.engine(request.param)


@pytest.fixture(scope="session")
def station(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with running_station(tmp_path_factory.mktemp("station"), engine=engine) as made:
        yield made
