from collections.abc import Iterator

import pytest
from station_programs import Installed, open_folder


@pytest.fixture
def station() -> Iterator[Installed]:
    """A station that `pht-station init` has made."""
    with open_folder() as folder:
        made = Installed.make(folder)
        yield made
        made.close()
