import shutil
from collections.abc import Iterator

import pytest
from sandbox_kit import Station, running_station

# It is about engines that can hand out no GPU; the others' are tried in tests/integration/gpu.
collect_ignore = ["test_sandbox_gpu.py"] if shutil.which("nvidia-container-runtime-hook") else []


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with running_station(tmp_path_factory.mktemp("station")) as made:
        yield made
