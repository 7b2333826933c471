"""Every shipped train has an example policy, valid by the model and by the JSON Schema, and fit to be drafted from."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from board_answers import ANSWERS

from policies.board.documents.documents_in import read_train
from policies.board.documents.drafting import DraftOptions, draft_policy, example_names
from policies.board.documents.placeholders import BOARDS_OWN, FILL_IN, unfinished
from policies.documents import load_yaml
from policies.manifest import Modality, TrainManifest
from policies.policy import Policy
from policies.purposes import PurposeTable

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "policies" / "examples"
SCHEMAS = ROOT / "policies" / "schemas"
TRAINS = sorted(path.parent.name for path in (ROOT / "train_images").glob("*/train.yaml"))
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IMAGE = "sha256:" + "5" * 64


def document(path: Path) -> Any:
    """What a JSON Schema is asked about: JSON, in which a moment is text."""

    class AsText(yaml.SafeLoader):
        pass

    AsText.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load(path.read_text("utf-8"), Loader=AsText)  # noqa: S506 - a SafeLoader


def valid(schema: str, found: Any) -> None:
    rules = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.Draft202012Validator(rules).validate(found)


def packed(name: str, folder: Path) -> Path:
    """The train's manifest as `pht-train pack` leaves it: with an image in it."""
    text = (ROOT / "train_images" / name / "train.yaml").read_text()
    path = folder / "train.yaml"
    path.write_text(f'{text}images:\n  - {{variant: cpu, config_digest: "{IMAGE}"}}\n')
    return path


def test_every_train_folder_has_its_example_and_every_example_its_train() -> None:
    assert TRAINS
    assert list(example_names()) == TRAINS


@pytest.mark.parametrize("name", TRAINS)
def test_an_example_is_valid_by_model_and_by_schema(name: str) -> None:
    path = EXAMPLES / f"{name}.yaml"
    policy = load_yaml(Policy, path.read_bytes(), what=path.name)
    assert policy.id == name
    valid("policy", document(path))


@pytest.mark.parametrize("name", TRAINS)
def test_a_draft_fills_in_digests_dates_and_what_the_manifest_says(name: str, tmp_path: Path) -> None:
    train = read_train(packed(name, tmp_path))
    data = draft_policy(train, DraftOptions(now=NOW, requester_key="a" * 64))
    path = tmp_path / "policy.yaml"
    path.write_bytes(data)
    drafted, example = document(path), document(EXAMPLES / f"{name}.yaml")
    valid("policy", drafted)
    assert drafted["manifest_digest"] == train.digest
    assert drafted["image_config_digests"] == [IMAGE]
    assert drafted["requester"].pop("key") == "a" * 64
    assert drafted["valid_from"] == "2026-11-22T00:00:00Z"
    assert drafted["valid_until"] > drafted["valid_from"]
    del example["requester"]["key"]
    # What an example narrows stays narrow: its summary speaks of it.
    assert (
        drafted["runs"].pop("hyperparameters")
        == {
            key: spec.model_dump(mode="json", exclude_none=True)
            for key, spec in train.manifest.hyperparameters.items()
        }
        | example["runs"]["hyperparameters"]
    )
    assert drafted["resources"].pop("gpu") == (train.manifest.resources.gpu != "none")
    assert drafted["resources"].pop("cpu_fallback") == (train.manifest.resources.gpu == "optional")
    del example["runs"]["hyperparameters"], example["resources"]["gpu"]
    for key in ("manifest_digest", "image_config_digests", "valid_from", "valid_until"):
        del drafted[key], example[key]
    # Names, references and the legal ground are the board's own: none of the example's is taken over.
    assert {key.removesuffix(".0") for key in unfinished(data)} == set(BOARDS_OWN)
    answered = draft_policy(train, DraftOptions(now=NOW, requester_key="a" * 64, answers=ANSWERS))
    assert unfinished(answered) == []
    for path, value in ANSWERS.items():
        assert taken_out(yaml.safe_load(answered), path) == value
        assert taken_out(drafted, path) != taken_out(example, path)
    # Every other line that a board reads stands in the example.
    assert contained(example, drafted)


def taken_out(found: Any, path: str) -> Any:
    """The value at a path, which is not there any more afterwards."""
    *folders, last = path.split(".")
    for name in folders:
        found = found[name]
    return found.pop(last)


def contained(less: Any, more: Any) -> bool:
    """Whether everything that one document says stands in the other with the same value."""
    if isinstance(less, dict):
        return isinstance(more, dict) and all(
            key in more and contained(value, more[key]) for key, value in less.items()
        )
    return bool(less == more)


@pytest.mark.parametrize("name", TRAINS)
def test_patients_can_read_what_it_is(name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    policy = load_yaml(Policy, text.encode(), what=name)
    assert FILL_IN not in text
    for summary, says in ((policy.summary.nl, ("blijven in elk ziekenhuis", "bezwaar maken")),
                          (policy.summary.en, ("stay in each hospital", "object at your hospital"))):  # fmt: skip
        sentences = [sentence for sentence in summary.replace("?", ".").split(".") if sentence.strip()]
        assert len(sentences) >= 4
        # Plain language: sentences that can be read in one breath.
        assert max(len(sentence.split()) for sentence in sentences) <= 32
        for words in says:
            assert words in " ".join(summary.split())


def test_each_train_stays_within_its_example() -> None:
    for name in TRAINS:
        manifest = load_yaml(
            TrainManifest, (ROOT / "train_images" / name / "train.yaml").read_bytes(), what=name
        )
        policy = load_yaml(Policy, (EXAMPLES / f"{name}.yaml").read_bytes(), what=name)
        assert policy.kind is manifest.kind
        assert manifest.resources.memory_mib <= policy.resources.memory_mib
        assert {metric.key for metric in manifest.outputs.metrics} == set(policy.release.metrics)
        assert {item.key for item in manifest.outputs.aggregates} == set(policy.release.tables)
        # A code that a policy lacks is counted as a crash, and nobody learns why.
        assert set(manifest.error_codes) == set(policy.release.error_codes)
        # Images of one kind lie in one collection.
        assert list(policy.data.modalities) == list(manifest.data.modalities)
        assert list(policy.data.collections) == [
            "thorax-ct" if Modality.CT in manifest.data.modalities else "thorax-cxr"
        ]


def test_a_summary_says_that_the_number_of_images_leaves() -> None:
    for name in TRAINS:
        policy = load_yaml(Policy, (EXAMPLES / f"{name}.yaml").read_bytes(), what=name)
        assert re.search(r"aantal (foto's|scans)[^.]*,\s*afgerond op tientallen", policy.summary.nl), name
        assert re.search(r"number of (images|scans)[^.]*,\s*rounded to tens", policy.summary.en), name


def test_the_other_documents_are_valid_by_their_schemas() -> None:
    path = EXAMPLES / "purposes.yaml"
    table = load_yaml(PurposeTable, path.read_bytes(), what=path.name)
    valid("purpose-table", document(path))
    # No example asks for a consent that the example table does not take to be enough.
    for name in TRAINS:
        policy = load_yaml(Policy, (EXAMPLES / f"{name}.yaml").read_bytes(), what=name)
        needed = table.consents_for(policy.purpose.code, policy.requester.requester_class)
        assert needed is not None
        assert needed <= set(policy.data.consent_purposes)


def test_the_skeleton_is_valid_by_the_schema_but_for_what_is_to_be_filled_in(tmp_path: Path) -> None:
    train = packed("example-command", tmp_path)
    train.write_text(train.read_text().replace("name: example-command", "name: something-new"))
    data = draft_policy(read_train(train), DraftOptions(now=NOW, requester_key="a" * 64))
    path = tmp_path / "policy.yaml"
    path.write_bytes(data)
    valid("policy", document(path))
    assert len(unfinished(data)) > 5
