"""What a run gives, over real HTTPS: to whom, how much of it, and whole or marked as incomplete."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from orchestrator_site import weights
from results_world import AUC, FIVE, ResultsWorld, results_world
from safetensors.numpy import load_file

from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.registry.access import Role
from orchestrator.results.folder import wants_result
from policies.documents import digest_of
from policies.errors import NotFoundError, TrustError, UsageError
from policies.result_files import most_bytes
from policies.signing import load_signer, verify_envelope
from train_images.tool.results import PAYLOAD_TYPE, fetch_result, outcome_of


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultsWorld]:
    """Where the policy shows pooled values only."""
    with results_world(tmp_path_factory.mktemp("pooled"), station_results="false") as found:
        yield found


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultsWorld]:
    """Where the policy shows what each station released."""
    with results_world(tmp_path_factory.mktemp("named")) as found:
        yield found


def everything_told(world: ResultsWorld, digest: str, out: Path) -> str:
    """All that the researcher gets to see of a run, but pictures and weights."""
    fetch_result(world.alice, digest, out)
    texts = [path.read_text() for path in out.iterdir() if path.suffix not in {".png", ".safetensors"}]
    told = [world.alice.get_run(digest).model_dump_json(), world.alice.events(digest).model_dump_json()]
    return "\n".join([*texts, *told])


def test_without_the_policys_word_nobody_is_shown_a_stations_value(
    pooled: ResultsWorld, tmp_path: Path
) -> None:
    digest = pooled.ordered()
    pooled.ended(digest)
    text = everything_told(pooled, digest, tmp_path / "out")
    assert not [value for value in AUC.values() if str(value) in text or str(1 + value) in text]
    for role in (Role.BOARD, Role.OPERATOR, Role.AUDITOR):
        seen = pooled.place.client(role, role.value).get_run(digest).model_dump_json()
        assert not [value for value in AUC.values() if str(value) in seen]
    card = json.loads((tmp_path / "out" / "model-card.json").read_bytes())
    assert card["stations"]["names"] == "not stated"
    assert card["data"]["stations"] == 5
    words = re.findall(r"\w+", (tmp_path / "out" / "model-card.md").read_text())
    assert not set(FIVE) & set(words)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "metrics.csv").read_text())))
    assert {line["station"] for line in lines} == {"(pooled)"}
    assert {line["metric"] for line in lines} == {"loss", "auc"}


def test_with_the_policys_word_each_is_shown_by_its_name(named: ResultsWorld, tmp_path: Path) -> None:
    digest = named.ordered()
    named.ended(digest)
    text = everything_told(named, digest, tmp_path / "out")
    assert all(str(value) in text for value in AUC.values())
    lines = csv.DictReader(io.StringIO((tmp_path / "out" / "metrics.csv").read_text()))
    auc = {
        line["station"]: line["value"] for line in lines if (line["round"], line["metric"]) == ("2", "auc")
    }
    assert {name: float(auc[name]) for name in FIVE} == AUC
    card = json.loads((tmp_path / "out" / "model-card.json").read_bytes())
    assert card["performance"]["rounds"][-1]["by_station"]["evaluate"]["eem"] == {"auc": AUC["eem"]}


def test_a_card_says_what_is_on_record_and_no_more(named: ResultsWorld, tmp_path: Path) -> None:
    digest = named.ordered()
    named.ended(digest)
    fetch_result(named.alice, digest, tmp_path)
    card = json.loads((tmp_path / "model-card.json").read_bytes())
    assert card["details"]["licence"] == "Apache-2.0"
    assert card["details"]["source_commit"] == card["details"]["network"] == "not stated"
    assert card["use"]["purpose"] == "method-development"
    assert card["use"]["benefit"].startswith("A model that the participating hospitals may use")
    assert "Commercial use: the policy does not approve it." in card["use"]["out_of_scope"]
    assert card["policy"]["model_status"]["status"] == "undetermined"
    assert card["policy"]["summary_nl"].startswith("Ziekenhuizen leren samen")
    assert card["release"]["differential_privacy"] == "none"
    assert card["details"]["weights_sha256"] == digest_of(weights())[7:]
    assert card["outcome"]["complete"]
    page = (tmp_path / "model-card.md").read_text()
    assert "Pneumonia on chest radiographs" in page or "Ziekenhuizen leren samen" in page
    # An order of before the policy was kept with it: nothing is made up.
    named.run(digest).path.joinpath("policy.dsse.json").unlink()
    named.ended(digest)
    assert (
        json.loads((named.run(digest).path / "result" / "model-card.json").read_bytes())["use"]["purpose"]
        == "not stated"
    )


def test_the_statement_names_every_file_and_is_countersigned(named: ResultsWorld, tmp_path: Path) -> None:
    digest = named.ordered()
    named.ended(digest)
    files = {file.name: file.digest for file in fetch_result(named.alice, digest, tmp_path)}
    statement = json.loads((tmp_path / "provenance.json").read_bytes())
    subjects = {each["name"]: "sha256:" + each["digest"]["sha256"] for each in statement["subject"]}
    assert subjects == {name: value for name, value in files.items() if not name.startswith("provenance")}
    predicate = statement["predicate"]
    assert predicate["order"]["strategy"] == {"name": "FedAvg", "parameters": {}}
    assert predicate["software"]["flwr"]
    key = load_signer(named.place.home.notary_key).public_hex
    assert predicate["signature"]["key"] == key
    envelope = (tmp_path / "provenance.dsse.json").read_bytes()
    signed = verify_envelope(envelope, PAYLOAD_TYPE, [key], 1)
    assert signed.payload == (tmp_path / "provenance.json").read_bytes()


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
def test_a_run_that_ended_early_gives_what_it_has_and_says_so(
    named: ResultsWorld, tmp_path: Path, state: RunState
) -> None:
    digest = named.ordered()
    named.ended(digest, state, rounds=1, code="TOO_FEW_STATIONS_ANSWERED", write=False)
    assert wants_result(named.run(digest).path)
    named.ended(digest, state, rounds=1, code="TOO_FEW_STATIONS_ANSWERED")
    assert not wants_result(named.run(digest).path)
    fetch_result(named.alice, digest, tmp_path)
    complete, words = outcome_of(tmp_path)
    assert not complete
    assert "TOO_FEW_STATIONS_ANSWERED" in words
    assert "after 1 of 2 rounds" in words
    assert "round 1" in words
    assert words in json.loads((tmp_path / "model-card.json").read_bytes())["limitations"]
    assert not json.loads((tmp_path / "metrics.json").read_bytes())["complete"]
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["layer.bias"], np.zeros(3))
    # It goes on: what it gave is no result of it any more, and the next end gives another.
    named.alice.resume_run(digest)
    assert named.alice.get_run(digest).result == []
    with pytest.raises(NotFoundError):
        named.alice.get_result_file(digest, "model.safetensors", tmp_path / "x")
    named.ended(digest)
    fetch_result(named.alice, digest, tmp_path)
    assert outcome_of(tmp_path)[0]
    assert not (named.run(digest).path / "incomplete").exists()


@pytest.mark.parametrize(
    "name", ["train.yaml", "conftest.py", "key.pem", "provenance.json", "../metrics.json"]
)
def test_an_orchestrator_chooses_no_name_in_a_researchers_folder(
    named: ResultsWorld, tmp_path: Path, name: str
) -> None:
    digest = named.ordered()
    named.ended(digest)
    folder = named.run(digest).path / "result"
    statement = json.loads((folder / "provenance.json").read_bytes())
    statement["subject"].append({"name": name, "digest": {"sha256": "0" * 64}})
    (folder / "provenance.json").write_text(json.dumps(statement))
    with pytest.raises(TrustError, match="names a file that a result does not have"):
        fetch_result(named.alice, digest, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"provenance.json.new"}


@pytest.mark.parametrize("own", ["train.yaml", "torch.py", "nested"])
def test_a_result_goes_into_no_folder_of_something_else(
    named: ResultsWorld, tmp_path: Path, own: str
) -> None:
    digest = named.ordered()
    named.ended(digest)
    if own == "nested":
        (tmp_path / own).mkdir()
    else:
        (tmp_path / own).write_text("mine")
    with pytest.raises(UsageError) as error:
        fetch_result(named.alice, digest, tmp_path)
    assert "empty folder" in error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [own]


@pytest.mark.parametrize("name", ["provenance.json", "provenance.dsse.json", "metrics.json"])
def test_a_document_that_grows_beyond_bounds_is_broken_off(
    named: ResultsWorld, tmp_path: Path, name: str
) -> None:
    digest = named.ordered()
    named.ended(digest)
    with (named.run(digest).path / "result" / name).open("r+b") as file:
        file.truncate(most_bytes(name) + 1)
    with pytest.raises(TrustError, match="more bytes came"):
        fetch_result(named.alice, digest, tmp_path)
    assert not [
        path for path in tmp_path.iterdir() if path.name in {name, f"{name}.part", f"{name}.new.part"}
    ]


def test_a_run_that_released_nothing_gives_nothing(named: ResultsWorld) -> None:
    digest = named.ordered()
    named.run(digest).write_progress(RunProgress(state=RunState.FAILED, code="TOO_FEW_STATIONS_ACCEPTED"))
    assert not wants_result(named.run(digest).path)
    with pytest.raises(NotFoundError, match="it is failed"):
        fetch_result(named.alice, digest, named.folder / "nothing")


def test_stop_and_resume_are_in_the_runs_history(named: ResultsWorld) -> None:
    digest = named.ordered()
    with pytest.raises(UsageError, match="queued"):
        named.alice.resume_run(digest)
    named.alice.stop_run(digest)
    assert named.run(digest).stop_wanted()
    named.ended(digest, RunState.STOPPED, rounds=1)
    for outsider in (named.researcher("mallory"), named.station("amstel")):
        with pytest.raises((NotFoundError, TrustError)):
            outsider.resume_run(digest)
    named.alice.resume_run(digest)
    assert not named.run(digest).stop_wanted()
    history = named.alice.get_run(digest).history
    found = [(line.get("state") or line["asked"], line.get("by", "")) for line in history]
    assert ("stop", "researcher:alice") in found
    assert ("resume", "researcher:alice") in found
    assert [word for word, _ in found if word in set(RunState)] == ["queued", "stopped", "queued"]
    assert all(line["at"].endswith("Z") for line in history)


def test_another_researcher_gets_nothing(named: ResultsWorld, tmp_path: Path) -> None:
    digest = named.ordered()
    named.ended(digest)
    mallory = named.researcher("mallory")
    with pytest.raises(NotFoundError):
        fetch_result(mallory, digest, tmp_path)
    for call in (mallory.get_run, mallory.stop_run, mallory.resume_run):
        with pytest.raises(NotFoundError):
            call(digest)
    with pytest.raises(NotFoundError):
        mallory.get_result_file(digest, "model.safetensors", tmp_path / "x")
    with pytest.raises(TrustError):
        mallory.get_mirror_report(digest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["..%2Fstate.json", "..%2F..%2F..%2Fkeys%2Fnotary.pem", ".end", "%2Fetc%2Fpasswd", "model.safetensors%00",
     "MODEL.SAFETENSORS", "order.json", ".%2Fprovenance.json"],
)  # fmt: skip
def test_a_name_is_never_a_path(named: ResultsWorld, name: str) -> None:
    digest = named.ordered()
    named.ended(digest, RunState.FAILED, rounds=1)
    token = named.place.services.access.new_token(Role.OPERATOR, "operator")
    with named.place.raw(Authorization=f"Bearer {token}") as raw:
        answer = raw.get(httpx.URL(f"{named.place.url}/api/v1/runs/{digest}/result/{name}"))
        assert answer.status_code in {404, 405}, answer.status_code
        assert b"PRIVATE" not in answer.content


def test_a_file_says_its_digest_and_goes_on_only_where_it_is_the_same(named: ResultsWorld) -> None:
    digest = named.ordered()
    named.ended(digest)
    token = named.place.services.access.new_token(Role.OPERATOR, "operator")
    target = f"/api/v1/runs/{digest}/result/metrics.json"
    with named.place.raw(Authorization=f"Bearer {token}") as raw:
        whole = raw.get(target)
        etag = whole.headers["etag"]
        assert etag == f'"{digest_of(whole.content)}"'
        rest = raw.get(target, headers={"Range": "bytes=10-", "If-Range": etag})
        assert (rest.status_code, rest.content) == (206, whole.content[10:])
        other = raw.get(target, headers={"Range": "bytes=10-", "If-Range": '"sha256:other"'})
        assert (other.status_code, other.content) == (200, whole.content)
