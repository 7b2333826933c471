"""Which weights an order uses: read once, and again only after a document of it was replaced."""

from pathlib import Path

import pytest
from federation_samples import DIGEST, NAMES, manifest, run_order

from orchestrator.federation.order_weights import weights_in
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder
from policies.errors import StateError
from policies.policy import ReleaseRules


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return FolderQueue(tmp_path).submit(
        AcceptedOrder(
            order_digest=DIGEST,
            envelope="{}",
            order=run_order(),
            manifest=manifest(),
            release=ReleaseRules(maximum_bytes=1000),
            nodes={name: number for number, name in enumerate(NAMES, 1)},
        )
    )


def test_a_document_is_parsed_once_while_it_stays(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    read = RunFolder.read_order
    monkeypatch.setattr(
        RunFolder, "read_order", lambda self: (parsed.append(self.order_digest), read(self))[1]
    )
    assert [weights_in(folder) for _ in range(50)] == [frozenset({DIGEST})] * 50
    assert len(parsed) == 1


def test_a_new_average_is_seen_at_once(folder: RunFolder) -> None:
    weights_in(folder)
    for number in range(5):
        new = "sha256:" + f"{number}" * 64
        folder.write_json("checkpoint.json", {"round": number, "weights": {"digest": new, "size": 3}})
        assert weights_in(folder) == {DIGEST, new}


def test_a_damaged_order_is_said_each_time(folder: RunFolder) -> None:
    weights_in(folder)
    (folder.path / "order.json").write_text("{")
    for _ in range(2):
        with pytest.raises(StateError):
            weights_in(folder)
