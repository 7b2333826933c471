"""One yard for all tests of the trains that ship."""

import subprocess
from collections.abc import Iterator

import pytest
from tool_kit import Tool
from trains_kit import Yard


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    yield made
    for tag in made.tags:
        subprocess.run(["docker", "rmi", "-f", tag], check=False, capture_output=True, timeout=60)


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)
