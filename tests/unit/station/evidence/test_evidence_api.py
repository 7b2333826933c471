"""The evidence as the operator gets it: over the local API, as a stream, audited first, and nothing left behind."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from evidence_kit import EvidenceRun
from local_api_kit import served, short_folder
from station_kit import broken_disk, order_digest

from policies.documents import digest_of
from policies.errors import NotFoundError, PhtError, StateError
from policies.evidence import verify_pack
from station.evidence.collecting import EvidenceCollector
from station.runs.chains import Chains
from station.runs.desk import StationDesk
from station.web.api import create_api
from station.web.client import LocalApi

TOKEN = "t" * 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceRun]:
    made = EvidenceRun.make(tmp_path_factory.mktemp("api"))
    yield made
    made.kit.close()


@pytest.fixture(scope="module")
def api(run: EvidenceRun) -> Iterator[LocalApi]:
    kit = run.kit
    nobody: Any = SimpleNamespace(last_contact=None)
    launcher: Any = kit.launcher
    chains = Chains("amstel", kit.database, run.identity, kit.clock, kit.paths.work)
    desk = StationDesk(
        kit.settings, kit.gatekeeper, kit.catalogue, kit.runs, kit.warm, kit.releases, kit.audit, chains, launcher, nobody,
        run.collector,
    )  # fmt: skip
    with short_folder() as folder:
        path = folder / "api.sock"
        (folder / "api.token").write_text(TOKEN)
        with served(create_api(desk, TOKEN), path):
            client = LocalApi(path, folder / "api.token")
            yield client
            client._client.close()


def test_the_pack_comes_over_the_local_api_and_is_audited_by_its_digest(
    api: LocalApi, run: EvidenceRun, tmp_path: Path
) -> None:
    pack = tmp_path / "evidence.zip"
    with pack.open("wb") as file:
        api.download(f"/v1/runs/{run.digest}/evidence", file)
    assert verify_pack(pack, run.root, run.kit.clock()).holds
    exports = [
        item.record for item in run.kit.audit.events(limit=10_000) if item.record.event == "evidence-exported"
    ]
    assert exports[-1].object == digest_of(pack.read_bytes())
    assert not [path.name for path in run.kit.paths.work.iterdir() if "evidence" in path.name]


def test_what_cannot_be_given_is_a_problem_and_leaves_nothing(
    api: LocalApi, run: EvidenceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match="no such order"):
        api.download(f"/v1/runs/{digest_of(b'none')}/evidence", BytesIO())
    monkeypatch.setattr(run.kit.audit, "append", broken_disk)
    with pytest.raises(PhtError, match="disk is full"):
        # It is audited before the first byte goes, or it does not go.
        api.download(f"/v1/runs/{run.digest}/evidence", BytesIO())
    assert not [path.name for path in run.kit.paths.work.iterdir() if "evidence" in path.name]


def test_an_order_that_was_refused_has_no_pack(api: LocalApi, run: EvidenceRun) -> None:
    refused = run.kit.order(stations=["berkel", "dommel", "eem"], minimum_stations=3)
    run.kit.prepare(refused)
    with pytest.raises(NotFoundError, match="never admitted"):
        api.download(f"/v1/runs/{order_digest(refused)}/evidence", BytesIO())


def test_another_key_than_the_registered_one_signs_nothing(run: EvidenceRun, tmp_path: Path) -> None:
    other = EvidenceCollector("amstel", run.kit.database, Ed25519PrivateKey.generate(), run.kit.paths.trust)
    with pytest.raises(StateError, match="another identity key"):
        other.collect(run.digest, tmp_path / "evidence.zip")
    assert not list(tmp_path.iterdir())
