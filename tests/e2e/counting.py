"""A train without a program: the hospitals count their own clinical data. Then a few patients object, and the same is asked again.

What the second count would tell beside the first is how those few patients were: a subtraction. It stays in the hospitals.
"""

from __future__ import annotations

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e import adversary
from tests.e2e.protection import audit_of
from tests.e2e.report import HIDDEN
from tests.e2e.researcher import Train

if TYPE_CHECKING:
    from tests.e2e.consortium import Hospital
    from tests.e2e.demo import Demo
    from tests.e2e.protection import Govern

OBJECTING = 4
"""Fewer than a cell may hold."""
SAME = "as before"
"""What a station answers whose counted patients are still the same: the objecting ones were in its other splits."""

_TERMS = {
    "data.collections": "[thorax-cxr]", "data.minimum_patients": 20, "runs.runs": 5, "runs.releases": 5,
    "release.minimum_patients_per_metric": 5, "release.minimum_cell_count": 5,
    "release.station_results": "true",
}  # fmt: skip


def show(demo: Demo, govern: Govern, train: Train) -> None:
    """Count, have patients object, count again; note what was told and what was withheld."""
    r, hospitals = demo.researcher, demo.consortium.hospitals
    r.submit(train)
    policy = govern(demo, train, "counts", _TERMS)
    digest = r.send(r.order(train, policy, "counting"))
    r.watch(digest)
    out = r.results(digest, demo.output / "counts")
    told = _told(json.loads((out / "metrics.json").read_bytes())["rounds"][-1])
    demo.say("no program, no container: each hospital counted its own patients, and hid what is too small")
    for name, keys in sorted(told.items()):
        demo.say(f"{name} told {', '.join(keys) or 'nothing'}")
    for hospital in hospitals:
        hospital.call("consent", "import", _objections(hospital.source / "consent.csv", demo.consortium.root))
    again = r.send(r.order(train, policy, "counting-again"))
    adversary.outcome(demo.consortium, again)
    with ThreadPoolExecutor(len(hospitals)) as pool:
        answers = pool.map(lambda hospital: _answer(demo, hospital, again), hospitals)
        said = dict(zip((hospital.name for hospital in hospitals), answers, strict=True))
    demo.facts["counting"] = {"order": digest, "told": told, "objecting": OBJECTING, "again": said}
    withheld = [name for name, answer in said.items() if answer == "RELEASE_DIFFERENCE"]
    if not withheld or not set(said.values()) <= {"RELEASE_DIFFERENCE", SAME}:
        raise AssertionError(f"what a few objections change was not withheld: {said}")
    demo.say(
        f"{OBJECTING} patients of each hospital object; the same count again would tell of them by subtraction: "
        f"RELEASE_DIFFERENCE at {len(withheld)} stations"
    )


def _told(entry: dict[str, Any]) -> dict[str, list[str]]:
    """Return which tables each hospital told, with how many of their lines are hidden."""
    found: dict[str, list[str]] = {name: [] for name in entry["took_part"]}
    for name, tables in entry["tables"].get("analyse", {}).items():
        for key, lines in sorted(tables.items()):
            hidden = sum(HIDDEN in line for line in lines)
            found[name].append(f"{key} ({hidden} of {len(lines)} lines hidden)" if hidden else key)
    return found


def _objections(source: Path, folder: Path) -> Path:
    """Write the hospital's consent list as it is after a few patients who were for it have objected."""
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in [row for row in rows if row["decision"] == "consent"][:OBJECTING]:
        row["decision"] = "objection"
    out = folder / f"{source.parent.name}-consent.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


def _answer(demo: Demo, hospital: Hospital, digest: str, timeout_s: float = 600) -> str:
    """Wait for what a station's own audit says of its answer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for entry in audit_of(demo, hospital):
            if entry.get("object") != digest:
                continue
            if entry["event"] == "release-withheld":
                return str(entry["codes"][0])
            if entry["event"] == "release-recorded":
                return SAME
        time.sleep(0.2)
    return "no answer"
