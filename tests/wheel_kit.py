"""Wheels that pip takes, of a few bytes."""

import base64
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path


def wheel(
    folder: Path,
    tag: str = "py3-none-any",
    text: str = "answer = 42\n",
    *,
    name: str = "pht_tiny",
    version: str = "1.0",
    requires: Sequence[str] = (),
) -> str:
    """Write a wheel; `requires` are lines of its metadata. Returns its SHA-256."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", f"Version: {version}", *requires]
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},{_digest(content)},{len(content)}\n" for path, content in files.items())
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name_in, content in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(name_in), content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(content: str) -> str:
    raw = hashlib.sha256(content.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
