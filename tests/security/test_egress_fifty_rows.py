"""Attack: one patient's value is answered as fifty rows, as everybody's, or as rows of patients whom the train was never given.

Without the rule a histogram of fifty equal rows is one cell of fifty patients, far above any minimum, and tells one patient's value.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from egress_documents import ORDER, manifest, policy
from map_documents import row
from map_kit import PATIENTS, MapStation, running_map_station
from roster_kit import roster
from sandbox_kit import Station

from policies.documents import canonical_json, load_json
from policies.manifest import TrainManifest
from policies.refusals import RefusalCode
from policies.rules.capacity import trust_in_words
from policies.splits import Split
from station.cohorts.roster import Roster
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld
from station.sandbox.spec import TrainReply

pytestmark = pytest.mark.docker

# -- one patient at a time: the station gives one row its place, whatever is in the answer ---------------------------

WAYS: list[Any] = [
    [row(0.1)] * 50,
    {"rows": [row(0.1)] * 50},
    {"lung_share": [0.1] * 50, "nodules": [0] * 50, "sex": ["F"] * 50},
    {"patienta": row(0.1), "patientb": row(0.1)},
    {**row(0.1), "patient": "patientb"},
    {**row(0.1), "count": 50},
]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MapStation]:
    with running_map_station(tmp_path_factory.mktemp("fifty")) as made:
        yield made


def test_a_map_trains_one_patient_stays_one(mapped: MapStation) -> None:
    code = f"""
import json
ways = json.loads({json.dumps(json.dumps(WAYS))})
mine = json.load(open("/train/data/datalist.json"))["training"][0]["patient"]
number = "abcdefgh".index(mine[-1])
if number < len(ways):
    text = json.dumps(ways[number])
else:
    row = {row(0.1)!r}
"""
    reply, _ = mapped.ask(code)
    ends = reply.tally.outcomes(Split.TRAINING)
    assert sum(ends.values()) == len(PATIENTS)
    assert ends["answered"] == len(PATIENTS) - len(WAYS)
    for item in mapped.manifest.outputs.aggregates[:2]:
        exact = reply.tally.exact(item, 1)
        assert exact.patients == PATIENTS
        assert exact.counts.sum() == len(PATIENTS) - len(WAYS)


# -- everybody at once: rows are bound to the station's own list ------------------------------------------------------

EVERYBODY = roster(training=60, validation=20)
COUNTS = CohortCounts({Split.TRAINING: SplitCounts(60, 60), Split.VALIDATION: SplitCounts(20, 20)})
SCORES: dict[str, Any] = {
    "rows": {
        "columns": [
            {"name": "score", "type": "float", "minimum": 0.0, "maximum": 1.0},
            {
                "name": "sex",
                "type": "category",
                "categories": ["F", "M"],
                "missing": True,
                "source": "clinical",
            },
        ]
    },
    "aggregates": [{"key": "scores", "column": "score", "edges": [0.5], "split": "training"}],
    "metrics": [],
}
DATA = {"modalities": ["DX"], "profile": "thorax-1@1", "clinical_fields": ["sex"]}
REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))
TOO_FEW_OR_MANY = [
    "rows['score'] = [0.1] * 50",
    "rows['score'] = [0.1] * 61",
    "rows['score'] = [0.1] * 80",
    "rows['score'] = [0.1] * 6000",
    "rows['score'] = 0.1",
    "rows['score'] = [0.1] * 59 + [2.0]",
    "rows['score'] = [0.1] * 60; rows['sex'] = [0] * 60",
    "rows['score'] = [0.1] * 60; rows['validation1'] = [0.1] * 60",
    "rows.update({f'training{n}': [0.1] for n in range(60)})",
    "metrics['score'] = [0.1] * 60",
    "",
]


def guard(everybody: Roster = EVERYBODY) -> Guard:
    document = manifest("analysis").model_dump(mode="json") | {"data": DATA, "outputs": SCORES}
    train = load_json(TrainManifest, canonical_json(document), what="train.yaml")
    rules = policy(
        "analysis", data={"clinical_fields": ["sex"]}, metrics=[], tables=["scores"], trust_statement=None
    )
    return Guard(ReleaseContract.build(train, rules, None), COUNTS, everybody)


def judged(reply: object) -> Release | Withheld:
    assert isinstance(reply, TrainReply), reply
    head = {"type": "reply", "metrics": dict(reply.metrics), "rows": dict(reply.rows), "error": None}
    return guard().check(REQUEST, head, reply.arrays)


def test_rows_of_everybody_are_one_for_each_patient_and_no_more(station: Station) -> None:
    with station.session() as session:
        for code in TOO_FEW_OR_MANY:
            outcome = judged(station.ask(session, code))
            assert isinstance(outcome, Withheld), code
            assert outcome.code in {RefusalCode.RELEASE_ROWS_SHAPE, RefusalCode.RELEASE_METRIC_EXTRA}, code


def test_one_value_in_every_row_tells_a_bin_and_the_board_is_told_that_the_code_is_to_be_read(
    station: Station,
) -> None:
    """A train that sees everybody at once can write one patient's value into all rows: no rule on rows can tell, so it is bounded.

    What it gains is which of the declared bins; how many are in it is the station's number of patients, whatever it writes.
    """
    with station.session() as session:
        for share, expected in (("0.1", ((60,), (0,))), ("0.9", ((0,), (60,)))):
            outcome = judged(station.ask(session, f"rows['score'] = [{share}] * 60"))
            assert isinstance(outcome, Release)
            assert outcome.tables == {"scores": expected}
            assert outcome.counted[0].patients == tuple(f"project-training{n}" for n in range(60))
    rules = policy("analysis", metrics=[], tables=["scores"], trust_statement=None)
    assert "trusted not to code data" in trust_in_words(rules, manifest("analysis"))
