"""Runs once per patient, in a container of their own: reads the request, writes the row."""

import json
import os
from pathlib import Path

from .measure import row


def main() -> None:
    """Write reply/row.json, or the error code that train.yaml declares."""
    data = Path(os.environ.get("PHT_DATA", "/train/data"))
    settings = json.loads(Path("request/head.json").read_text(encoding="utf-8"))[
        "config"
    ]
    datalist = json.loads((data / "datalist.json").read_text(encoding="utf-8"))
    images = [
        data / case["image"]
        for split in ("training", "validation")
        for case in datalist[split]
    ]
    Path("reply/row.json").write_text(
        json.dumps(row(images, settings)), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
