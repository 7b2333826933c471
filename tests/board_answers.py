"""What the boards of the tests fill in where a draft leaves it to them: their names, references and legal ground."""

from pathlib import Path

import yaml

ANSWERS = {
    "requester.organisation": "UMC A, Department of Radiology",
    "requester.contact": "R. de Vries",
    "radiologist": "Dr. M. Jansen, thoracic radiologist",
    "legal.national_ground": "UAVG article 24 and article 7:458 BW, for patients who did not object",
    "legal.controllers": ["Each participating hospital for its own data"],
    "legal.dpia": "DPIA of the tests",
    "legal.ethics": "METC of the tests, not subject to the WMO",
    "legal.agreement.reference": "Agreement of the tests",
}


def write_answers(folder: Path) -> Path:
    """Write them as a board keeps them, for `pht-board draft --answers`."""
    path = folder / "answers.yaml"
    path.write_text(yaml.safe_dump(ANSWERS), encoding="utf-8")
    return path
