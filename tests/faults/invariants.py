"""What must hold whatever died: nothing lost, nothing doubled, nothing left behind.

The strongest of it is `models`: every model is computed again, offline, from the updates that the stations' own records hold, and must
be the orchestrator's byte for byte. The train draws part of its update anew each time (`train/wide_train.py`), so an update that was
computed twice, counted twice or taken from somebody else shows.
"""

import hashlib
import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from policies.refusals import RefusalCode
from policies.wire.instructions import StationReply, decode_reply
from tests.e2e.consortium import Hospital
from tests.e2e.programs import ProgramError, run_json
from tests.faults.topology import Site, until
from tests.faults.traffic import Traffic
from tests.flower_strategies import Deltas, Model, flower_rounds, flower_strategy

CLEAR_S = 120.0
"""How long containers and leases may take to be gone after the last run."""
MAY_FAIL = {"TOO_FEW_STATIONS_ACCEPTED", "TOO_FEW_STATIONS_ANSWERED"}
"""With which code a run may fail under faults, and then only with stations missing for `MAY_BE_MISSING`."""
MAY_BE_MISSING = {RefusalCode.TRAIN_FAILED_TOO_OFTEN.value}
"""A train whose container died again and again: a station cannot tell who killed it."""
NOT_BEGUN = {
    RefusalCode.CONSENT_UNKNOWN.value,
    RefusalCode.CONSENT_STALE.value,
    RefusalCode.POLICY_NOT_YET_VALID.value,
    RefusalCode.ORDER_NOT_YET_VALID.value,
    RefusalCode.TRUST_EXPIRED.value,
}
"""Why a station may refuse to begin while its clock is wrong; in a run that it accepted none of them is the end."""
FINISH = 0.9
"""The share of the runs that must finish, but for one: killing the same container three times in one run is rare."""

HALF_WRITTEN = re.compile(r"\..+\.[a-z0-9_]{8}")
"""How `policies.files.write_atomically` calls what it has not put in place yet."""

Key = tuple[str, int, str]


@dataclass(frozen=True)
class Books:
    """What one station has on record.

    Attributes:
        releases: the recorded reply and the digest of its arrays, by (order, round, stage).
        left: how often each release stands in the ledger as a first one.
        repeats: digests under which each release left again.
        recorded: how many releases the audit says were recorded.
        counter: the policy's.
    """

    releases: dict[Key, tuple[bytes, str | None]]
    left: Counter[Key]
    repeats: dict[Key, set[str]]
    recorded: int
    counter: int

    @classmethod
    def read(cls, hospital: Hospital) -> "Books":
        """Read them from the station's own database."""
        with sqlite3.connect(f"file:{hospital.home}/compute/station.db?mode=ro", uri=True) as database:
            releases = {
                (order, round_, stage): (reply, arrays)
                for order, round_, stage, reply, arrays in database.execute(
                    "select order_digest, round, stage, reply, arrays_digest from releases"
                )
            }
            counter = sum(
                value for (value,) in database.execute("select value from counters where name = 'releases'")
            )
            bodies = [json.loads(body) for (body,) in database.execute("select body from egress_ledger")]
            audit = [json.loads(body) for (body,) in database.execute("select body from audit_events")]
        left: Counter[Key] = Counter()
        repeats: dict[Key, set[str]] = {}
        for entry in bodies:
            if entry["type"] != "release" or "round" not in entry or "stage" not in entry:
                continue
            key = (entry["order_digest"], entry["round"], entry["stage"])
            if entry.get("repeated"):
                repeats.setdefault(key, set()).add(entry["digest"])
            else:
                left[key] += 1
        recorded = sum(entry.get("event") == "release-recorded" for entry in audit)
        return cls(releases, left, repeats, recorded, counter)

    def reply(self, key: Key) -> StationReply:
        return decode_reply(self.releases[key][0])


def broken(site: Site, traffic: Traffic) -> list[str]:
    """Look at everything; returns what does not hold, in words."""
    problems = list(traffic.problems)
    problems += runs_ended(traffic)
    problems += nothing_left_behind(site)
    books = {hospital.name: Books.read(hospital) for hospital in site.hospitals}
    for name, each in books.items():
        problems += [f"{name}: {what}" for what in counted_once(each)]
    problems += chains_hold(site)
    problems += rounds_are_the_releases(site, traffic, books)
    problems += models(site, traffic, books)
    return problems


def runs_ended(traffic: Traffic) -> Iterator[str]:
    """Every run is finished, or failed because its containers were killed too often; nearly all are finished."""
    progress = traffic.progress()
    finished = 0
    for name in traffic.digests:
        each = progress.get(name)
        if each is None or not each.state.is_over:
            yield f"{name} is not over: {each.state if each else 'no state'}"
        elif each.state is RunState.FINISHED:
            finished += 1
        elif each.state is RunState.STOPPED:
            yield f"{name} was stopped, and nobody asked for it"
        elif each.code not in MAY_FAIL or not each.missing or set(each.missing.values()) - _explained(each):
            yield f"{name} failed for another reason than its containers: {each.code or 'no code'} {each.missing}"
    if not finished or finished < min(FINISH * len(traffic.digests), len(traffic.digests) - 1):
        yield f"{finished} of {len(traffic.digests)} runs finished"


def _explained(progress: RunProgress) -> set[str]:
    return MAY_BE_MISSING | (NOT_BEGUN if progress.code == "TOO_FEW_STATIONS_ACCEPTED" else set())


def counted_once(books: Books) -> Iterator[str]:
    """Each release left once for the first time, under its own digest ever after, and was counted once."""
    for key, (reply, _) in books.releases.items():
        shown = f"release {key[0][7:15]} round {key[1]} {key[2]}"
        if books.left[key] != 1:
            yield f"{shown} left {books.left[key]} times for the first time"
        digest = "sha256:" + hashlib.sha256(reply).hexdigest()
        if others := books.repeats.get(key, set()) - {digest}:
            yield f"{shown} left again as {len(others)} other messages"
    if unknown := set(books.left) - set(books.releases):
        yield f"{len(unknown)} releases left that are not recorded"
    if not len(books.releases) == books.counter == books.recorded:
        yield f"{len(books.releases)} releases on record, {books.counter} counted, {books.recorded} in the audit"


def rounds_are_the_releases(site: Site, traffic: Traffic, books: dict[str, Books]) -> Iterator[str]:
    """What the orchestrator says a station answered in a round is what the station recorded."""
    queue = FolderQueue(site.orchestrator / "runs")
    for name, digest in traffic.digests.items():
        rounds = queue.folder(digest).read_rounds()
        if [entry["round"] for entry in rounds] != list(range(1, len(rounds) + 1)):
            yield f"{name}: its rounds are {[entry['round'] for entry in rounds]}"
        for entry in rounds:
            for stage in ("train", "evaluate"):
                for station, metrics in entry[stage].items():
                    key = (digest, entry["round"], stage)
                    if key not in books[station].releases:
                        yield f"{name}: round {entry['round']} has a {stage} of {station} that it never released"
                        continue
                    reply = books[station].reply(key)
                    if {each: float(value) for each, value in reply.metrics.items()} != metrics:
                        yield f"{name}: round {entry['round']} has other figures of {station} than it released"


def models(site: Site, traffic: Traffic, books: dict[str, Books]) -> Iterator[str]:
    """The model of every finished run follows from the recorded updates, each taken once, by Flower's own strategy."""
    queue = FolderQueue(site.orchestrator / "runs")
    progress = traffic.progress()
    for name, digest in traffic.digests.items():
        updates: list[Deltas] = []
        for entry in queue.folder(digest).read_rounds():
            taken: dict[str, tuple[int, Model]] = {}
            for station in sorted(entry["train"]):
                key = (digest, entry["round"], "train")
                path = site.hospital(station).home / "compute" / "releases"
                path /= f"{digest.removeprefix('sha256:')}-{entry['round']}-train.safetensors"
                if not path.is_file():
                    yield f"{name}: {station} has lost its update of round {entry['round']}"
                    continue
                data = path.read_bytes()
                if "sha256:" + hashlib.sha256(data).hexdigest() != books[station].releases[key][1]:
                    yield f"{name}: {station} holds another update of round {entry['round']} than it recorded"
                examples = books[station].reply(key).num_examples
                if not examples:
                    yield f"{name}: {station} recorded no examples in round {entry['round']}"
                    continue
                taken[station] = (examples, load_file(path))
            updates.append(taken)
        if name not in progress or progress[name].state is not RunState.FINISHED:
            continue
        weights = load_file(traffic.approved.weights)
        model = recomputed(traffic.strategies[name], weights, updates)
        out = site.root / "kept" / "results" / name
        out.parent.mkdir(exist_ok=True)
        traffic.researcher.results(digest, out)
        yield from (f"{name}: {what}" for what in differences(model, load_file(out / "model.safetensors")))


def recomputed(strategy: str, start: Model, rounds: Sequence[Deltas]) -> Model:
    """The model that Flower's own strategy makes of these updates."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # it tells of every round
    return flower_rounds(flower_strategy(strategy, {}), start, rounds)[-1]


def differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """In which tensors the model is not the expected one, byte for byte."""
    if set(expected) != set(found):
        yield f"the model has the tensors {sorted(found)}"
        return
    for key, value in expected.items():
        if value.dtype != found[key].dtype or value.tobytes() != found[key].tobytes():
            apart = float(np.max(np.abs(value.astype(np.float64) - found[key].astype(np.float64))))
            yield f"{key} of the model is not the recorded updates' average (by up to {apart:.3g})"


def chains_hold(site: Site) -> Iterator[str]:
    """Audit and ledger of every station are unbroken, and no statement contradicts another."""
    for hospital in site.hospitals:
        for chain in ("audit", "egress"):
            if not hospital.ask(chain, "verify")["intact"]:
                yield f"{hospital.name}: its {chain} is broken"
    try:
        run_json("pht-orchestrator", "station", "statements", site.orchestrator)
    except ProgramError as error:
        yield f"the stations' statements: {error}"


def nothing_left_behind(site: Site) -> Iterator[str]:
    """No container, no lease, no weights on their way, no half-written model."""

    def remains() -> dict[str, list[str]]:
        found = {"containers": site.containers()}
        for hospital in site.hospitals:
            for folder in ("work", "control", "cohorts"):
                found[f"{hospital.name}'s {folder}"] = _files(hospital.home / "compute" / folder)
        found["the orchestrator's blobs"] = [
            each for each in _files(site.orchestrator / "blobs") if ".new" in each or ".round-" in each
        ]
        found["the stations' updates"] = _files(site.orchestrator / "blobs" / "updates")
        found["the runs' replies"] = [str(path) for path in (site.orchestrator / "runs").glob("*/replies/*")]
        for party in ("orchestrator", *(hospital.name for hospital in site.hospitals)):
            hidden = [path for path in (site.disk(party) / "home").rglob(".*") if path.is_file()]
            found[f"{party}'s half-written files"] = [
                str(path) for path in hidden if HALF_WRITTEN.fullmatch(path.name)
            ]
        return {what: left for what, left in found.items() if left}

    if not until(lambda: not remains(), CLEAR_S, 0.5):
        for what, left in remains().items():
            yield f"{what}: {len(left)} left behind, such as {left[0]}"


def _files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if not path.is_dir()]
