"""What should be refused, tried for real: each attempt ends at a rule, and the rule's code is shown.

The hostile parties here hold what they would hold in life: a researcher with a key and an approved train, a secretary with the
publishing key, an orchestrator with all its folders. What stops them is at the stations.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from station.runs.states import TERMINAL
from tests.e2e import adversary
from tests.e2e.consortium import Hospital
from tests.e2e.programs import ProgramError, refused
from tests.e2e.researcher import Train

if TYPE_CHECKING:
    from tests.e2e.demo import Demo

Govern = Callable[..., Path]


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt and what became of it."""

    what: str
    by: str
    codes: dict[str, str]


def show(
    demo: Demo, govern: Govern, trains: Mapping[str, Train], train: Train, policy: Path, order: Path
) -> None:
    """Try everything, show every code, and note it all in the demo's facts.

    Args:
        demo: who there is.
        govern: has a train approved.
        trains: `tiny` and `hostile`, built.
        train: the one that was trained, with its policy and the order that was run.
        policy: its policy.
        order: its spent order.
    """
    tried: list[Tried] = []

    def note(what: str, by: str, codes: dict[str, str], expected: str, at: int = 3) -> None:
        if len(codes) != at or set(codes.values()) != {expected}:
            raise AssertionError(f"{what}: expected {expected} at {at} stations, saw {codes}")
        tried.append(Tried(what, by, codes))
        demo.console.print(f"  {what:<64} [green]{expected}[/green]  at {len(codes)} stations")

    tiny = _approve_tiny(demo, govern, trains["tiny"])
    note("a run order used twice", "orchestrator", _again(demo, train, policy, order), "ORDER_SPENT")
    note("a train whose image differs by one byte", "orchestrator", _one_byte(demo, tiny), "IMAGE_DIGEST")
    note("a policy signed by one member", "secretary", _one_member(demo, tiny), "POLICY_SIGNATURES_TOO_FEW")
    hostile = _hostile(demo, govern, trains["hostile"])
    note("a hostile train's extra tensor", "train", hostile["codes"], "RELEASE_TENSOR_EXTRA")
    killed = _killed(demo, tiny)
    note("a revoked train, while it runs", "researcher", _revoked(demo, killed["order"]), "POLICY_REVOKED")
    # Withdrawn stations are out for good, so the requester's order afterwards is for the two that are left.
    note("the trained order, a hospital withdrawn", "hospital", _station_withdrawn(demo), "STATION_REVOKED")
    note(
        "a new order of a withdrawn requester",
        "researcher",
        _withdrawn(demo, train, policy),
        "REQUESTER_REVOKED",
        at=2,
    )
    demo.facts["protection"] = [{"what": each.what, "by": each.by, "codes": each.codes} for each in tried] + [
        {
            "what": "a hostile train's attempts inside the sandbox",
            "by": "train",
            "attempts": hostile["attempts"],
        }
    ]
    demo.facts["killed_station"] = killed
    _capacity(demo)


@dataclass(frozen=True, slots=True)
class Tiny:
    """A small approved train to try things with."""

    train: Train
    policy: Path
    weights: Path


def _approve_tiny(demo: Demo, govern: Govern, train: Train) -> Tiny:
    r = demo.researcher
    r.submit(train)
    policy = govern(demo, train, "tiny", ANSWERS)
    return Tiny(train, policy, r.initial_weights(train))


ANSWERS = {
    "data.collections": "[thorax-cxr]", "data.minimum_patients": 5, "runs.runs": 20, "runs.rounds": 50, "runs.releases": 1000,
    "release.minimum_patients_per_metric": 5,
}  # fmt: skip


def _codes(
    demo: Demo,
    digest: str,
    says: Callable[[dict[str, Any], str], bool] | None = None,
    timeout_s: float = 600,
    hospitals: Sequence[Hospital] = (),
) -> dict[str, str]:
    """Wait until the run is over, and read from each station's own audit with which code it said no.

    Args:
        demo: who there is.
        digest: of the order.
        says: whether an audit entry is the one to read; by default the order's refusal.
        timeout_s: how long each station may take.
        hospitals: whose stations the order is for; by default all.
    """
    says = says or _refuses
    adversary.outcome(demo.consortium, digest)
    deadline = time.monotonic() + timeout_s

    def code_of(hospital: Hospital) -> str | None:
        # The orchestrator does not wait for the third "no"; the third station says it all the same.
        while time.monotonic() < deadline:
            found = [entry for entry in audit_of(demo, hospital) if says(entry, digest)]
            if found:
                return str(found[-1]["codes"][0])
            time.sleep(0.2)
        return None

    hospitals = hospitals or demo.consortium.hospitals
    with ThreadPoolExecutor(len(hospitals)) as pool:
        found = dict(
            zip((hospital.name for hospital in hospitals), pool.map(code_of, hospitals), strict=True)
        )
    return {name: code for name, code in found.items() if code is not None}


def audit_of(demo: Demo, hospital: Hospital) -> list[dict[str, Any]]:
    """Return a station's audit as it is now."""
    path = demo.consortium.root / f"{hospital.name}-audit.jsonl"
    hospital.call("audit", "export", path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def _refuses(entry: dict[str, Any], digest: str) -> bool:
    return entry.get("object") == digest and entry.get("outcome") == "refused" and bool(entry.get("codes"))


def _ends(entry: dict[str, Any], digest: str) -> bool:
    return entry.get("object") == digest and entry["event"] == "run-changed" and bool(entry.get("codes"))


def _again(demo: Demo, train: Train, policy: Path, order: Path) -> dict[str, str]:
    digest = adversary.impose_order(demo.consortium, order, train.bundle / "train.yaml", policy)
    return _codes(demo, digest)


def _one_byte(demo: Demo, tiny: Tiny) -> dict[str, str]:
    r, c = demo.researcher, demo.consortium
    layer = tiny.train.index["layers"][-1]["digest"]
    order = r.order(tiny.train, tiny.policy, "one-byte", weights=tiny.weights)
    adversary.flip_one_byte(c, layer)
    try:
        # An honest orchestrator would end the run at the first "no", which the third station may never have been asked by then.
        manifest = tiny.train.bundle / "train.yaml"
        return _codes(demo, adversary.impose_order(c, order, manifest, tiny.policy, tiny.weights))
    finally:
        adversary.flip_one_byte(c, layer)


def _one_member(demo: Demo, tiny: Tiny) -> dict[str, str]:
    r, c = demo.researcher, demo.consortium
    lonely = c.board / "lonely.yaml"
    lonely.write_text(tiny.policy.read_text().replace("id: tiny\n", "id: lonely\n"))
    c.sign(lonely, ("clinician",))
    adversary.publish_unchecked(c, lonely.with_name("lonely.yaml.dsse.json"), "lonely", 1)
    order = r.order(tiny.train, lonely, "one-member", weights=tiny.weights)
    return _codes(demo, adversary.impose_order(c, order, tiny.train.bundle / "train.yaml", lonely))


def _hostile(demo: Demo, govern: Govern, train: Train) -> dict[str, Any]:
    r = demo.researcher
    r.submit(train)
    policy = govern(demo, train, "hostile", ANSWERS)
    weights = r.folder / "tiny-initial.safetensors"
    digest = r.send(r.order(train, policy, "hostile", weights=weights), weights)
    codes = _codes(demo, digest)
    attempts = {}
    for hospital in demo.consortium.hospitals:
        lines = hospital.call("logs", digest).splitlines()
        attempts[hospital.name] = [
            line.removeprefix("ATTEMPT ") for line in lines if line.startswith("ATTEMPT ")
        ]
    first = next(iter(attempts.values()))
    for line in first:
        demo.say(f"hostile train, {line}")
    reached = [line for lines in attempts.values() for line in lines if "REACHED" in line]
    if reached or len(first) < 9:
        raise AssertionError(f"the hostile train got somewhere, or did not try: {reached or first}")
    return {"codes": codes, "attempts": attempts}


def _killed(demo: Demo, tiny: Tiny) -> dict[str, Any]:
    """SIGKILL a station in the middle of a round; it comes back and finishes it. The run goes on after that."""
    r, c = demo.researcher, demo.consortium
    victim = c.hospitals[1]
    settings = {"least_seconds": 8.0}
    # Rounds enough that none of them is the last before the run is withdrawn, however slow the board's commands are here.
    order = r.order(tiny.train, tiny.policy, "killed", rounds=50, weights=tiny.weights, settings=settings)
    digest = r.send(order, tiny.weights)
    _await_state(victim, digest, "busy")
    assert victim.server is not None
    victim.server.kill()
    killed_at = time.monotonic()
    demo.say(f"{victim.name}: SIGKILL in the middle of its round")
    victim.server.start()
    entry = adversary.await_round(c, digest, 1)
    took = round(time.monotonic() - killed_at, 1)
    if victim.name not in entry["took_part"] or entry["missing"]:
        raise AssertionError(f"the killed station did not finish its round: {entry}")
    releases = [row for row in victim.ask("releases") if row["order"] == digest]
    if len(releases) != len({(row["round"], row["stage"]) for row in releases}):
        raise AssertionError("the killed station released something twice")
    demo.say(
        f"{victim.name} came back and finished it: {len(entry['took_part'])} of 3 took part, {took} s later"
    )
    return {
        "station": victim.name,
        "order": digest,
        "took_part": entry["took_part"],
        "seconds": took,
        "releases": len([row for row in releases if row["round"] == 1]),
    }


def _await_state(hospital: Hospital, digest: str, state: str, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    found: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        found = [row for row in hospital.ask("runs") if row["order"] == digest]
        if found and found[0]["state"] == state:
            return
        if found and found[0]["state"] in TERMINAL:
            break
        time.sleep(0.1)
    raise TimeoutError(f"{hospital.name} was not seen {state}: {found}")


def _revoked(demo: Demo, digest: str) -> dict[str, str]:
    """Withdraw the policy of a run that goes on: its next message is refused, and its containers are gone."""
    demo.consortium.revoke("tiny", 1, reason="shown to be revocable")
    codes = _codes(demo, digest, _ends)
    for hospital in demo.consortium.hospitals:
        states = {row["state"] for row in hospital.ask("runs") if row["order"] == digest}
        if states & {"ready", "busy"}:
            raise AssertionError(f"{hospital.name} still holds a container of a revoked train: {states}")
    return codes


def _station_withdrawn(demo: Demo) -> dict[str, str]:
    """Withdraw the third hospital: it says so itself, and the others that too few are left for the order.

    The orchestrator hands a withdrawn station nothing any more, so each station is asked for its own verdict.
    """
    c = demo.consortium
    c.revoke("--station", c.hospitals[-1].name, reason="its agreement was shown to be revocable")
    digest = demo.facts["training"]["order"]
    deadline = time.monotonic() + 600

    def verdict(hospital: Hospital) -> str:
        # Asking makes the station look at the board's repository again, but does not wait for that.
        while True:
            try:
                code = refused("pht-station", "explain", digest, "--home", hospital.home)
            except ProgramError as error:
                if error.code != 0:
                    raise
                code = "nothing against it"
            if code == "STATION_REVOKED" or time.monotonic() > deadline:
                return code

    with ThreadPoolExecutor(len(c.hospitals)) as pool:
        return dict(
            zip((hospital.name for hospital in c.hospitals), pool.map(verdict, c.hospitals), strict=True)
        )


def _withdrawn(demo: Demo, train: Train, policy: Path) -> dict[str, str]:
    """Withdraw the requester: an order under another policy, which still stands, is refused as well."""
    r, c = demo.researcher, demo.consortium
    left = c.hospitals[:-1]
    order = r.order(
        train, policy, "withdrawn", rounds=1, weights=r.initial_weights(train), unchecked=True,
        stations=[hospital.name for hospital in left], minimum=len(left),
    )  # fmt: skip
    c.revoke("--requester", r.key.with_suffix(".pub"), reason="the key was shown around")
    digest = adversary.impose_order(c, order, train.bundle / "train.yaml", policy)
    return _codes(demo, digest, hospitals=left)


def _capacity(demo: Demo) -> None:
    capacity = demo.facts["review"]["capacity"]
    demo.say(
        "and the honest line: the declared weights of cxr-classification could carry out at most "
        f"{math.ceil(capacity['bits_per_round']):,} bits per round and station, "
        f"{math.ceil(capacity['bits_per_run']):,} over all rounds the policy grants: about "
        f"{capacity['radiographs']:,.0f} radiographs"
    )
