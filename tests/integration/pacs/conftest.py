"""What the tests of the sources share: one authority and the certificates of four parties."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from pacs_kit import Certificates
from pacs_station import IntakeProcess

from station.settings.dicom import PacsSettings, ReceiverSettings


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificates]:
    """Certificates of the station, a modality and the PACS of one authority, and of a stranger of another."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()
    made = {
        name: Certificates.issue(folder / name, authority, name) for name in ("station", "modality", "pacs")
    }
    stranger = Certificates.issue(folder / "stranger", other, "stranger")
    # Trusts the station, and is trusted by nobody.
    made["stranger"] = Certificates(made["station"].authority, stranger.certificate, stranger.key)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a station is to be."""
    return tmp_path / "home"


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[..., IntakeProcess]]:
    """Starts an intake as a process; it ends with the test at the latest."""
    running: list[IntakeProcess] = []

    def begin(receiver: ReceiverSettings, *pacs: PacsSettings) -> IntakeProcess:
        running.append(IntakeProcess(home, receiver, *pacs))
        return running[-1]

    yield begin
    for service in running:
        service.kill()
