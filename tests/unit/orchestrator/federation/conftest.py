"""What all tests of the federation stand in: a Flower run, and a world of one order."""

from pathlib import Path

import pytest
from federation_world import World
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    # Flower makes messages for the run of the process it is in.
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
