"""Images in small, for those who read them: real tar layers, a config that names them, and a bundle on disk."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.blobs import BlobFolder
from policies.bundle import BundleIndex
from policies.documents import digest_of

SITE = "opt/train/lib/python3.11/site-packages"
MANIFEST = """
schema_version: 1
name: cxr-classification
version: 1.0.0
title: Pneumonia on chest radiographs
kind: training
interface: flower
data: {{modalities: [DX], profile: thorax-1@1, label: pneumonia}}
hyperparameters:
  rate: {{type: float, minimum: 0.0, maximum: 10.0, default: 1.0}}
outputs:
  tensors: {{layout: same-as-input}}
  metrics:
    - {{key: loss, stage: train, minimum: 0.0, maximum: 100.0, split: training}}
resources: {{memory_mib: 256, cpus: 1.0}}
contact: {{name: R. de Vries, organisation: UMC A, email: r@example.org}}
licence: Apache-2.0
source_commit: 0123456789abcdef
images:
  - {{variant: cpu, config_digest: "{image}"}}
"""


@dataclass(frozen=True)
class Entry:
    """One entry of a layer, as `tarfile` takes it."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    pax: Mapping[str, str] | None = None


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer of these entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.size, info.mode, info.type = len(entry.data), entry.mode, entry.kind
            info.linkname, info.pax_headers = entry.link, dict(entry.pax or {})
            archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def files(**named: str | bytes) -> bytes:
    """A layer of plain files; ``__`` in a name stands for a slash, ``_d_`` for a dot."""
    return tar(
        *(
            Entry(
                name.replace("__", "/").replace("_d_", "."),
                data if isinstance(data, bytes) else data.encode(),
            )
            for name, data in named.items()
        )
    )


def pack(
    folder: Path,
    layers: Sequence[bytes],
    *,
    config: Mapping[str, Any] | None = None,
    manifest: str = MANIFEST,
) -> Path:
    """A bundle of these layers, as `pht-train pack` leaves it."""
    blobs = BlobFolder(folder / "blobs")
    stored = [blobs.put_bytes(layer) for layer in layers]
    image = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-11-22T10:00:00Z",
        "config": {"Env": ["PATH=/opt/train/bin"], "Cmd": ["python3"], "User": "", "WorkingDir": "/opt/pht"},
        "history": [{"created_by": f"step {number}"} for number, _ in enumerate(layers, 1)],
        "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in stored]},
        **(config or {}),
    }
    found = blobs.put_bytes(json.dumps(image).encode())
    text = manifest.format(image=found.digest).encode()
    (folder / "train.yaml").write_bytes(text)
    index = BundleIndex(config=found, layers=tuple(stored), manifest=blobs.put_bytes(text))
    (folder / "bundle.json").write_bytes(index.encode())
    return folder


def manifest_digest(bundle: Path) -> str:
    """The digest of a bundle's manifest."""
    return digest_of((bundle / "train.yaml").read_bytes())


DPKG = """Package: bash
Status: install ok installed
Version: 5.2.15-2
Architecture: amd64
Description: the shell
 Package: not-a-package

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libgcc-s1
Status: install ok installed
Version: 12.2.0-14
"""
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: GPL-3+

Files: doc/*
License: Expat
"""


def debian_layer() -> bytes:
    """A lowest layer as Debian's looks: merged /bin, the list of packages, and their copyright files."""
    return tar(
        Entry("./", kind=tarfile.DIRTYPE),
        Entry("./bin", kind=tarfile.SYMTYPE, link="usr/bin"),
        Entry("./usr/bin/bash", b"\x7fELF bash", 0o755),
        Entry("./usr/bin/su", b"\x7fELF su", 0o4755),
        Entry("./var/lib/dpkg/status", DPKG.encode()),
        Entry(
            "./var/lib/dpkg/info/bash.list", b"/.\n/bin\n/bin/bash\n/bin/su\n/usr/share/doc/bash/copyright\n"
        ),
        Entry("./usr/share/doc/bash/copyright", COPYRIGHT.encode()),
        Entry("./usr/share/doc/gcc-12-base/copyright", b"In prose."),
        Entry("./usr/share/doc/libgcc-s1", kind=tarfile.SYMTYPE, link="gcc-12-base"),
    )


def distribution(
    name: str, version: str, licence: str, record: str = "", place: str = SITE
) -> tuple[Entry, ...]:
    """A Python distribution's metadata."""
    folder = f"{place}/{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n\nText: of the readme\n"
    return (Entry(f"{folder}/METADATA", metadata.encode()), Entry(f"{folder}/RECORD", record.encode()))
