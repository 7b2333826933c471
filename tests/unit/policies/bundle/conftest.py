"""An empty folder of blobs."""

from pathlib import Path

import pytest

from policies.blobs import BlobFolder


@pytest.fixture
def store(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "store")
