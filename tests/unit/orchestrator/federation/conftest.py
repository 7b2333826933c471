"""What all tests of the federation stand in: a Flower run, and a world of one order."""

from pathlib import Path

import pytest
from federation_world import World

from tests.flower_strategies import in_a_run


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    in_a_run()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
