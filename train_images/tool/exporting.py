"""Turns a fetched result into a form that torch or MONAI loads: by a program of the `algorithms` extra, after its files are verified.

The tool itself needs no torch. The program is started with verified files alone, and builds the network that the result names from a
closed list.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from policies.documents import digest_of_file, load_json
from policies.errors import DocumentError, NotFoundError, TrustError, UsageError
from policies.networks import Network
from policies.result_files import PROVENANCE
from train_images.tool.results import subjects_of

Form = Literal["torch", "monai-bundle"]

NEEDED: Final = ("model.safetensors", "network.json", "model-card.json", "model-card.md")
_TIMEOUT_S: Final = 900.0


def export(result: Path, out: Path, form: Form) -> tuple[str, ...]:
    """Write a result in another form.

    Args:
        result: a folder that `pht-train results` filled.
        out: a folder that is not there yet.
        form: `torch` (``model.pt`` and ``network.json``) or `monai-bundle`.

    Returns:
        The files that were written, relative to `out`.

    Raises:
        NotFoundError: there is no result, or it holds no model.
        TrustError: a file is not the one that the provenance names.
        UsageError: `out` is there, the train names no network, its weights do not fit it, or torch is not installed.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already", hint="Name a new folder.")
    _verify(result)
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("monai") is None:
        raise UsageError(
            "torch and MONAI are not installed here", hint="pip install 'pht-radiology[algorithms]'"
        )
    arguments = [sys.executable, "-m", "algorithms.export", str(result), str(out), "--to", form]
    try:
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"the export took longer than {_TIMEOUT_S:.0f} s") from error
    if ended.returncode == 1 and ended.stderr.strip():
        # One line of our own program; what else it printed is a library's.
        raise UsageError(ended.stderr.strip().splitlines()[-1][:300])
    if ended.returncode != 0:
        raise UsageError("the export failed", hint="The result is as it was; its weights are safetensors.")
    return tuple(sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()))


def _verify(result: Path) -> None:
    if not (result / PROVENANCE).is_file():
        raise NotFoundError(f"{result}: holds no result", hint="Fetch it: pht-train results DIGEST OUT.")
    subjects = subjects_of(result / PROVENANCE)
    if "model.safetensors" not in subjects:
        raise NotFoundError("the result holds no model: its run trained none")
    if "network.json" not in subjects:
        raise UsageError(
            "the train's manifest names no network, so nobody can say what the weights are of",
            hint="Say `network:` in train.yaml; the weights of this result are safetensors.",
        )
    for name in NEEDED:
        path = result / name
        if name not in subjects or not path.is_file() or digest_of_file(path) != subjects[name]:
            raise TrustError(
                f"{name} is not the file that {PROVENANCE} names", hint="Fetch the result again."
            )
    try:
        load_json(Network, (result / "network.json").read_bytes(), what="network.json")
        json.loads((result / "model-card.json").read_bytes())
    except (DocumentError, ValueError) as error:
        raise UsageError("network.json names no network that can be built") from error
