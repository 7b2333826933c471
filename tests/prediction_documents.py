"""What the tests of predictions share: declarations, an origin, and what an outside judge says of a DICOM file."""

import subprocess
from pathlib import Path

from policies.predictions import Code, Measurement, Prediction, Segment
from station.predictions.model import Origin

STRUCTURE = Code(value="123037004", scheme="SCT", meaning="Anatomical Structure")
LUNGS = Prediction(
    name="lungs",
    kind="segmentation",
    segments=(
        Segment(
            name="left_lung",
            category=STRUCTURE,
            type=Code(value="44029006", scheme="SCT", meaning="Left lung"),
        ),
        Segment(
            name="right_lung",
            category=STRUCTURE,
            type=Code(value="3341006", scheme="SCT", meaning="Right lung"),
        ),
    ),
)
SHARES = Prediction(
    name="shares",
    kind="measurements",
    values=(
        Measurement(
            name="involved",
            title=Code(value="involved", scheme="99PHT", meaning="Involved share of the lungs"),
            unit="%",
            minimum=0,
            maximum=100,
        ),
        Measurement(
            name="volume",
            title=Code(value="118565006", scheme="SCT", meaning="Volume"),
            unit="mL",
            minimum=0,
            maximum=20_000,
        ),
    ),
)
ORIGIN = Origin(
    series_uid="2.25.81",
    instance_uid="2.25.82",
    moment="20260101120000",
    station="amstel",
    train="ct-segmentation",
    version="1.2.3",
    organisation="A Hospital",
    image_config_digest=f"sha256:{'2' * 64}",
    order_digest=f"sha256:{'3' * 64}",
    round=4,
)


def judged(path: Path) -> str:
    """What dciodvfy says of a file."""
    result = subprocess.run(
        ["/usr/bin/dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
    )
    return result.stdout + result.stderr
