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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the socket under every engine but one: it does not know what is behind it."""

    def is_once_too_often(item: pytest.Item) -> bool:
        values = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        return values.get("launcher") == "socket" and values.get("engine") != "docker"

    left_out = [item for item in items if is_once_too_often(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
