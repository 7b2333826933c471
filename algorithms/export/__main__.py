"""``python -m algorithms.export RESULT OUT --to torch|monai-bundle``: a fetched result as a checkpoint, or as a MONAI bundle.

Called by `pht-train export`, which has verified the result's files. Ends with 0, or with 1 and one line on stderr.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from algorithms.export.bundle import write_bundle
from algorithms.export.networks import ExportError, build, fit, read_state


def main() -> int:
    """Export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--to", choices=("torch", "monai-bundle"), required=True)
    chosen = parser.parse_args()
    try:
        _export(chosen.result, chosen.out, chosen.to)
    except ExportError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"cannot be written ({error.strerror})\n")
        return 1
    return 0


def _export(result: Path, out: Path, to: str) -> None:
    network = _json(result / "network.json")
    state = read_state(result / "model.safetensors")
    fit(build(network), state)
    out.mkdir(parents=True)
    if to == "torch":
        torch.save(state, out / "model.pt")
        (out / "network.json").write_text(
            json.dumps(network, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        return
    page = (result / "model-card.md").read_text(encoding="utf-8")
    write_bundle(out, state, network, _json(result / "model-card.json"), page)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path.name} cannot be read") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path.name} cannot be read")
    return value


if __name__ == "__main__":
    sys.exit(main())
