"""`pht-station`: what a hospital's operator and data steward type.

Each module parses its commands, calls one use case (over the local API, or the installation) and renders. Exit codes:
`policies.errors.ExitCode`.
"""

from policies.console import program as run_program
from station.cli import (
    accesses,
    catalogue,
    clinical,
    consent,
    continuity,
    data,
    evidence,
    gpus,
    images,
    installing,
    key,
    labels,
    mirror,
    pacs,
    predictions,
    privacy,
    pseudonymise,
    quarantine,
    readiness,
    records,
    releases,
    review,
    selftest,
    trains,
)
from station.cli.program import app

__all__ = [
    "accesses",
    "app",
    "catalogue",
    "clinical",
    "consent",
    "continuity",
    "data",
    "evidence",
    "gpus",
    "images",
    "installing",
    "key",
    "labels",
    "main",
    "mirror",
    "pacs",
    "predictions",
    "privacy",
    "pseudonymise",
    "quarantine",
    "readiness",
    "records",
    "releases",
    "review",
    "selftest",
    "trains",
]

main = run_program(app)
