"""Runs the image's own program once per request, in any language.

The program finds ``request/head.json`` and, where arrays came, ``request/arrays.safetensors`` in its working folder, and
writes ``reply/head.json`` (``metrics``, ``rows``, ``scores``, or ``error``) and, where it has arrays, ``reply/arrays.safetensors``.
A program that ends with another code than 0 has failed, unless its reply names an error of the train's manifest.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .frames import MAX_REPLY_HEAD_BYTES, Json, Request
from .reply import UNCAUGHT, Reply


class CommandTrain:
    """A program and the folder in which it is run."""

    def __init__(self, argv: Sequence[str], scratch: Path, data: Path) -> None:
        self._argv = list(argv)
        self._scratch = scratch
        self._data = data
        self._previous: Path | None = None

    def answer(self, request: Request) -> Reply:
        """Run the program for one request. Its files stay until the next request, since the reply is sent from them."""
        if self._previous is not None:
            shutil.rmtree(self._previous, ignore_errors=True)
        folder = self._scratch / str(int(str(request.head["id"])))
        self._previous = folder
        make_folders(folder, request)
        if request.arrays_path is not None:
            shutil.copyfile(request.arrays_path, folder / "request" / "arrays.safetensors")
        code = run_program(self._argv, folder)
        head = read_object(folder / "reply" / "head.json")
        if isinstance(error := head.get("error"), str):
            return Reply(error=error)
        if code != 0:
            return Reply(error=UNCAUGHT)
        arrays = folder / "reply" / "arrays.safetensors"
        return Reply(
            metrics=_object(head, "metrics"),
            rows=_object(head, "rows"),
            arrays_path=str(arrays) if arrays.is_file() else None,
            scores=_scores(head),
        )


def make_folders(folder: Path, request: Request) -> None:
    """Make the folders of one request, with its head in them."""
    (folder / "request").mkdir(parents=True)
    (folder / "reply").mkdir()
    (folder / "request" / "head.json").write_text(json.dumps(request.head), encoding="utf-8")


def run_program(argv: Sequence[str], folder: Path) -> int:
    """Run the train's program in a request's folder; returns its exit code, and prints another than 0."""
    finished = subprocess.run(argv, cwd=folder, check=False, stdin=subprocess.DEVNULL)
    if finished.returncode != 0:
        print(f"pht_runtime: the program ended with code {finished.returncode}", flush=True)  # noqa: T201
    return finished.returncode


def read_object(path: Path, most_bytes: int = MAX_REPLY_HEAD_BYTES) -> dict[str, Json]:
    """Return a JSON object that the program wrote; an empty one where it wrote none.

    Raises:
        ValueError, TypeError: it is too large, or no JSON object.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > most_bytes:
        raise ValueError(f"reply/{path.name} is larger than {most_bytes} bytes")
    head = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(head, dict):
        raise TypeError(f"reply/{path.name} holds no JSON object")
    return head


def _scores(head: Mapping[str, Json]) -> list[Json]:
    value = head.get("scores") or []
    if not isinstance(value, list):
        raise TypeError("scores in reply/head.json is no list")
    return value


def _object(head: Mapping[str, Json], key: str) -> dict[str, Json]:
    value = head.get(key) or {}
    if not isinstance(value, dict):
        raise TypeError(f"{key} in reply/head.json is no object")
    return value
