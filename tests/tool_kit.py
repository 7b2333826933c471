"""What the tests of `pht-train` share: bundles made without an engine, a policy for them, and the program as people type it."""

import io
import json
import os
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from policies.blobs import Blob, BlobFolder
from policies.board.documents.documents_in import read_train
from policies.board.documents.drafting import DraftOptions, draft_policy
from policies.bundle import BundleIndex
from policies.console import run
from policies.documents import canonical_json
from policies.errors import ExitCode
from policies.image_config import MAX_CONFIG_BYTES
from policies.manifest import ImageVariant
from train_images.cli import app
from train_images.tool.folders import PackedTrain, read_bundle
from train_images.tool.packing import with_image

MANIFEST = """\
# What our train is. Written by hand.
schema_version: 1
name: trivial
version: 1.0.0
title: Adds a step to every weight   # a remark
kind: training
interface: flower
data: {modalities: [DX], profile: thorax-1@1, clinical_fields: [pneumonia], label: pneumonia}
hyperparameters:
  step: {type: float, minimum: 0.0, maximum: 10.0, default: 1.0}
  times: {type: int, minimum: 1, maximum: 5, default: 2}
  flip: {type: bool, default: false}
outputs:
  tensors: {layout: same-as-input}
  metrics:
    - {key: loss, stage: train, minimum: 0, maximum: 100, split: training}
    - {key: auc, stage: evaluate, minimum: 0, maximum: 1, split: validation}
resources: {memory_mib: 256, cpus: 1}
contact: {name: A Person, organisation: A Hospital, email: a@b.nl}
licence: Apache-2.0
source_commit: unversioned
"""
DESCRIPTION: Mapping[str, object] = {"interface": "flower", "clientapp": "trivial:app"}


def layer(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed layer that holds these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def make_bundle(
    folder: Path,
    *,
    manifest: str = MANIFEST,
    description: object = DESCRIPTION,
    layers: tuple[bytes, ...] = (),
) -> PackedTrain:
    """A bundle as `pht-train pack` leaves it, of an image that no engine ever had."""
    store = BlobFolder(folder / "blobs")
    found: list[Blob] = [
        store.put_bytes(data)
        for data in (layers or (layer({"opt/pht/train.json": json.dumps(description).encode()}),))
    ]
    config = store.put_bytes(
        canonical_json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in found]},
            }
        )
    )
    text = with_image(manifest.encode(), ImageVariant(variant="cpu", config_digest=config.digest))
    index = BundleIndex(config=config, layers=tuple(found), manifest=store.put_bytes(text))
    (folder / "bundle.json").write_bytes(index.encode())
    (folder / "train.yaml").write_bytes(text)
    return read_bundle(folder)


def with_layer(
    train: PackedTrain, folder: Path, files: Mapping[str, bytes], manifest: bytes | None = None
) -> PackedTrain:
    """A packed train with one layer more, as of a Dockerfile that goes on from it and copies these files; nothing is built or saved.

    Args:
        train: what it stands on; its layers are linked, not copied.
        folder: of the new bundle.
        files: by their paths in the image, without the first slash.
        manifest: its author's text where it is another one.
    """
    store = BlobFolder(folder / "blobs")
    top = store.put_bytes(layer(files))
    for digest in {each.digest for each in train.index.layers}:
        os.link(train.store.path(digest), store.path(digest))
    document = json.loads(train.store.read_bytes(train.index.config.digest, max_bytes=MAX_CONFIG_BYTES))
    document["rootfs"]["diff_ids"].append(top.digest)
    document["history"].append({"created_by": "COPY"})
    config = store.put_bytes(canonical_json(document))
    image = ImageVariant(variant="cpu", config_digest=config.digest)
    text = with_image(manifest or (train.path / "train.yaml").read_bytes(), image)
    index = BundleIndex(config=config, layers=(*train.index.layers, top), manifest=store.put_bytes(text))
    (folder / "bundle.json").write_bytes(index.encode())
    (folder / "train.yaml").write_bytes(text)
    return read_bundle(folder)


def make_policy(train: PackedTrain, path: Path, requester_key: str, **settings: object) -> Path:
    """A policy file for a bundle: the board's draft, with a few things set."""
    now = datetime.now(UTC) - timedelta(days=1)
    wanted = {"board": "test-board", "runs.rounds": 3, "runs.releases": 100, "requester.key": requester_key}
    wanted |= {name.replace("__", "."): value for name, value in settings.items()}
    options = DraftOptions(now=now, settings={name: _yaml(value) for name, value in wanted.items()})
    path.write_bytes(draft_policy(read_train(train.path), options))
    return path


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True)).removesuffix("...\n").strip()


def write_weights(path: Path, **tensors: np.ndarray[Any, Any]) -> Path:
    """A file of weights; a small one where none are named."""
    save_file(dict(tensors) or {"weight": np.zeros(4, np.float32)}, path)
    return path


class Tool:
    """`pht-train`, typed in this process; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object, code: ExitCode = ExitCode.OK) -> str:
        found = run(app, [str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        assert found == code, self.err + self.out
        return self.out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: object) -> str:
        """Run what must be refused; returns the code."""
        self(*arguments, "--json", code=ExitCode.REFUSED)
        return str(json.loads(self.err.strip().splitlines()[-1])["error"]["code"])

    def error(self, code: ExitCode, *arguments: object) -> str:
        """Run what must fail; returns the message and the hint."""
        self(*arguments, code=code)
        return self.err
