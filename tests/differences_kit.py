"""Orders of one requester, one after the other, at a station whose train counts patients by what it finds; see `map_runs`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogue_log import patient
from cohort_files import KEY
from map_documents import row
from map_runs import ORDER, analyse
from sqlalchemy import delete
from station_kit import PATIENTS, StationKit

from policies.splits import Split
from policies.wire.instructions import StationReply, Status
from station.egress.differencing.tables import DifferenceRow

COUNTED = tuple(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.TRAINING)
"""The patients whom the tables are of."""


def ill(number: int) -> bool:
    """What the kit's clinical data say of a patient."""
    return number % 2 == 1


def finds(kit: StationKit, share: Callable[[bool], float]) -> None:
    """Let the train answer a share of each patient's by whether they are ill."""

    def train(_: object, cohort: Path) -> Any:
        (entry,) = [
            case
            for split in ("training", "validation")
            for case in json.loads((cohort / "datalist.json").read_bytes())[split]
        ]
        header, line = (cohort / "clinical.csv").read_text().splitlines()
        values = dict(zip(header.split(","), line.split(","), strict=True))
        assert values["patient"] == entry["patient"]
        return row(share(values["pneumonia"] in ("1", "True", "true", "yes"))), {}, None

    kit.sandbox.train = train  # type: ignore[assignment]


def by_illness(found: bool) -> float:
    return 0.1 if found else 0.3


def ordered(kit: StationKit, **order: Any) -> StationReply:
    """One more order, run to its answer; it is finished, so that it holds no place."""
    envelope = kit.ready(**{**ORDER, **order})
    reply = analyse(kit, envelope)
    kit.warm.let_go(reply.order_digest, None)
    return reply


def told(reply: StationReply) -> list[int]:
    """The first table, patients by share; it must have left."""
    assert reply.status is Status.RELEASED, reply
    return [int(line[0]) for line in reply.tables["lung_shares"]]


def unguarded(kit: StationKit) -> None:
    """As if this station kept no record of what it told: what an attack does without the guard."""
    with kit.database.write() as session:
        session.execute(delete(DifferenceRow))


def refused(reply: StationReply) -> bool:
    """Whether nothing left for the reason of differences."""
    nothing = not reply.tables and not reply.metrics and reply.release is None
    return (reply.status, reply.code, nothing) == (Status.WITHHELD, "RELEASE_DIFFERENCE", True)
