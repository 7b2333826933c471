"""Attack: a train states counts, tables, free text and keys of its own, through our runtime and past it, straight on the socket."""

import json
from pathlib import Path
from typing import Any

import pytest
from egress_documents import METRIC, ORDER, manifest, policy
from roster_kit import roster
from sandbox_kit import Station
from test_sandbox_reply_too_long import RAW

from policies.refusals import RefusalCode
from policies.splits import Split
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, ReplyStamp, Withheld, released_reply
from station.sandbox.spec import ExitClass, TrainFailure, TrainReply

pytestmark = pytest.mark.docker

SECRET = "Jansen 1961"
LABELLED: dict[str, Any] = {
    "rows": {"columns": [{"name": "finding", "type": "category", "categories": ["absent", "present"]}]},
    "aggregates": [{"key": "findings", "column": "finding", "split": "training"}],
    "metrics": [{**METRIC, "stage": "analyse"}],
}
COUNTS = CohortCounts({Split.TRAINING: SplitCounts(60, 60), Split.VALIDATION: SplitCounts(20, 20)})
REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))
GOOD = "rows['finding'] = [0, 1] * 30; metrics['loss'] = 0.5; "


def judged(reply: TrainReply) -> Release | Withheld:
    rules = policy("analysis", metrics=["loss"], tables=["findings"], trust_statement=None)
    contract = ReleaseContract.build(manifest("analysis", **LABELLED), rules, None)
    head = {"type": "reply", "metrics": dict(reply.metrics), "rows": dict(reply.rows), "error": None}
    return Guard(contract, COUNTS, roster(training=60, validation=20)).check(REQUEST, head, reply.arrays)


def left(release: Release) -> str:
    return released_reply(release, ReplyStamp(1, "abc", 0.0, None, None)).model_dump_json()


STATED = [
    ("metrics['findings'] = [10, 50]", RefusalCode.RELEASE_METRIC_EXTRA),
    ("metrics['patients'] = 60", RefusalCode.RELEASE_METRIC_EXTRA),
    ("metrics['loss'] = [10, 50]", RefusalCode.RELEASE_METRIC_RANGE),
    ("rows['findings'] = [10, 50]", RefusalCode.RELEASE_ROWS_SHAPE),
    ("rows['finding'] = [10, 50]", RefusalCode.RELEASE_ROWS_SHAPE),
    ("rows['finding'] = [2] * 60", RefusalCode.RELEASE_ROWS_SHAPE),
    ("rows['outcome'] = [0] * 60", RefusalCode.RELEASE_ROWS_SHAPE),
]


def test_counts_stated_by_a_train_never_leave(station: Station) -> None:
    with station.session() as session:
        for code, refused in STATED:
            reply = station.ask(session, GOOD + code)
            assert isinstance(reply, TrainReply), reply
            outcome = judged(reply)
            assert isinstance(outcome, Withheld), code
            assert outcome.code is refused, code


def test_what_flower_asks_every_client_to_count_is_not_passed_on(station: Station) -> None:
    with station.session() as session:
        reply = station.ask(session, GOOD + "metrics['num-examples'] = 7")
        assert isinstance(reply, TrainReply)
        assert "num-examples" not in reply.metrics
        outcome = judged(reply)
        assert isinstance(outcome, Release)
        # The station's own, rounded: 80 images.
        assert outcome.num_examples == 80
        assert outcome.tables == {"findings": ((30,), (30,))}


HEADS: list[dict[str, Any]] = [
    {"tables": {"findings": [[10], [50]]}},
    {"note": SECRET},
    {"rows": [SECRET]},
    {"num_examples": 7},
    {"error": SECRET},
]


@pytest.mark.parametrize("said", HEADS)
def test_a_head_of_other_keys_is_no_reply(station: Station, said: dict[str, Any]) -> None:
    head = {"type": "reply", "id": 1, "metrics": {}, "rows": {}, "error": None, **said}
    code = (
        RAW
        + f"""
head = {json.dumps(head)!r}.encode()
sock.sendall(struct.pack('>4sIQ', b'PHT1', len(head), 0) + head)
import time
time.sleep(600)
"""
    )
    with station.session() as session:
        answer = station.ask(session, code)
        assert answer == TrainFailure(ExitClass.PROTOCOL, detail="its answer has another form than a reply")
        assert not session.alive


TEXTS: list[dict[str, Any]] = [
    {"metrics": {"loss": SECRET}, "rows": {"finding": ["absent"] * 60}},
    {"metrics": {"loss": 0.5, SECRET: 1}, "rows": {"finding": ["absent"] * 60}},
    {"metrics": {"loss": 0.5}, "rows": {"finding": [SECRET] * 60}},
    {"metrics": {"loss": 0.5}, "rows": {"finding": ["absent"] * 60, SECRET: []}},
    {"metrics": {"loss": 0.5}, "rows": {"finding": {SECRET: 60}}},
    {"metrics": {"loss": 0.5}, "rows": {"finding": [["absent", SECRET]] * 60}},
]


# Past our runtime: one answer to each request, as many as there are heads.
ANSWERS = """
def take(count):
    data = b""
    while len(data) < count:
        data += sock.recv(count - len(data))
    return data

for number, head in enumerate(HEADS, 1):
    if number > 1:
        _, head_bytes, arrays_bytes = struct.unpack(">4sIQ", take(16))
        take(head_bytes + arrays_bytes)
    data = head.replace("@", str(number)).encode()
    sock.sendall(struct.pack(">4sIQ", b"PHT1", len(data), 0) + data)
take(1)
"""


def test_free_text_is_in_nothing_that_leaves_nor_in_what_the_station_says_of_it(station: Station) -> None:
    heads = [
        json.dumps({"type": "reply", "id": "@", "error": None, **said}).replace('"@"', "@") for said in TEXTS
    ]
    with station.session() as session:
        for number in range(len(TEXTS)):
            reply = station.ask(session, RAW + f"HEADS = {heads!r}\n" + ANSWERS if number == 0 else "")
            assert isinstance(reply, TrainReply), (number, reply)
            assert SECRET in repr(reply)
            outcome = judged(reply)
            assert isinstance(outcome, Withheld)
            assert SECRET not in repr(outcome)


def test_what_leaves_of_an_honest_answer_is_what_was_declared(station: Station) -> None:
    with station.session() as session:
        reply = station.ask(session, GOOD)
        assert isinstance(reply, TrainReply)
        outcome = judged(reply)
        assert isinstance(outcome, Release)
        assert json.loads(left(outcome))["tables"] == {"findings": [[30], [30]]}
