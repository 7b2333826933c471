"""One yard for all tests of the trains that ship."""

from collections.abc import Iterator

import pytest
from tool_kit import Tool
from trains_kit import Yard, remove_images


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    yield made
    remove_images(made.tags)


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)
