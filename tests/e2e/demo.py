"""The main job, shown: three hospitals train one chest X-ray model, and nothing else leaves.

    python -m tests.e2e.demo --output demo-output [--data FOLDER] [--rounds 5]

Drives the four programs as people would and writes what came of it; every figure shown stands in `summary.json`.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.e2e import counting, protection
from tests.e2e.consortium import BOARD, COLLECTION, MEMBERS, Consortium, Hospital
from tests.e2e.programs import ProgramError, run, run_json, stopping
from tests.e2e.report import show_rounds, show_test, write_summary
from tests.e2e.researcher import REPOSITORY, Researcher, Train

SHARED = REPOSITORY.parent / "shared" / "data" / "cxr"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
SOURCES = (
    REPOSITORY / "train_images" / "cxr-classification",
    REPOSITORY / "train_images" / "cxr-evaluation",
    REPOSITORY / "tests" / "e2e" / "trains" / "counts",
    REPOSITORY / "tests" / "e2e" / "trains" / "tiny",
    REPOSITORY / "tests" / "e2e" / "trains" / "hostile",
)
"""The trains of the demo, the one that is dry-run first."""

ANSWERS = {
    "requester.organisation": "University Hospital A, Department of Radiology",
    "requester.contact": "R. de Vries",
    "radiologist": "Dr. M. Jansen, thoracic radiologist",
    "legal.national_ground": "UAVG article 24 and article 7:458 BW (WGBO), for patients who did not object; phantoms have no law.",
    "legal.controllers": ["Each hospital of the demonstration for its own data"],
    "legal.dpia": "DPIA of the demonstration",
    "legal.ethics": "METC of the demonstration, not subject to the WMO",
    "legal.agreement.reference": "Agreement of the demonstration",
}
"""What the board of the demo fills in where a draft leaves it to the board."""


@dataclass(slots=True)
class Demo:
    """The demo's state: who there is, and what was seen so far."""

    consortium: Consortium
    researcher: Researcher
    output: Path
    rounds: int
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        self.console.rule(f"[bold]{title}", align="left")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.console.print(f"[dim]{self.seconds[name]:.1f} s[/dim]")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False)


def found(demo: Demo, data: Path) -> None:
    """a. A board of three, an orchestrator, three hospitals."""
    c = demo.consortium
    c.found_board()
    demo.say("board of three; two signatures bind, a clinician's and a patient representative's among them")
    c.start_orchestrator()
    c.publish()
    c.start_witness()
    demo.say(f"orchestrator behind TLS at {c.url}; freshness witness vouches every 20 s")
    with ThreadPoolExecutor(len(HOSPITALS)) as pool:
        list(pool.map(lambda name: c.add_hospital(name, data / name), HOSPITALS))
        c.hospitals.sort(key=lambda hospital: hospital.name)
        c.register_hospitals()
        list(pool.map(c.start_station, c.hospitals))
    separation = c.hospitals[0].ask("status")["separation"]
    demo.facts["separation"] = separation
    demo.say(f"three stations serve, each as three processes (separation: {separation})")


def take_in(demo: Demo) -> dict[str, dict[str, Any]]:
    """Images, consent, eCRF; says nothing, since it runs while something else is shown."""
    hospitals = demo.consortium.hospitals
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(demo.consortium.take_in, hospitals)
        return {hospital.name: report for hospital, report in zip(hospitals, done, strict=True)}


def show_intake(demo: Demo, reports: dict[str, dict[str, Any]]) -> None:
    """c. What each hospital took in."""
    demo.facts["intake"] = reports
    for name, report in reports.items():
        demo.say(
            f"{name}: {report['handed_over']} of {report['files']} radiographs searched for burned-in text and "
            f"pseudonymised, {sum(report['quarantined'].values())} in quarantine"
        )


def govern(demo: Demo, train: Train, name: str, changes: dict[str, object] | None = None) -> Path:
    """The board drafts, reviews, signs and publishes a policy for a train."""
    c = demo.consortium
    policy = c.board / f"{name}.yaml"
    settings: list[object] = []
    for key, value in (changes or {}).items():
        settings += ["--set", f"{key}={value}"]
    answers = c.board / "answers.yaml"
    answers.write_text(json.dumps(ANSWERS), encoding="utf-8")
    run(
        "pht-board", "draft", "--from", train.bundle, "--out", policy, "--requester-key",
        demo.researcher.key.with_suffix(".pub"), "--board", BOARD, "--answers", answers, *settings,
    )  # fmt: skip
    # A train that is not shipped has no example policy; the board writes the rest of what stands in capitals.
    policy.write_text(policy.read_text().replace("FILL IN", "For the demonstration,"))
    c.sign(policy, ("clinician", "patient"), "--train", train.bundle)
    c.publish(policy)
    return policy


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the researcher made at home: packed trains, and what the dry run said of the first.

    Attributes:
        trains: by the name of their source folder.
        checked: the dry run of cxr-classification.
        public: the researcher's public key.
    """

    trains: dict[str, Train]
    checked: dict[str, Any]
    public: str


def work_at_home(demo: Demo) -> Workshop:
    """The researcher builds trains and dry-runs one; says nothing, since it runs while something else is shown."""
    r = demo.researcher
    public = r.settle()
    trains = {}
    checked: dict[str, Any] = {}
    for source in SOURCES:
        trains[source.name] = r.build(source)
        if source.name == "cxr-classification":
            checked = r.check(trains[source.name])
    return Workshop(trains, checked, public)


def prepare_train(demo: Demo, workshop: Workshop) -> tuple[Train, Path, Path]:
    """b. Built and dry-run; submitted, reviewed, signed, published."""
    r = demo.researcher
    train = workshop.trains["cxr-classification"]
    demo.say("built and packed cxr-classification (MONAI DenseNet121)")
    demo.facts["dry_run"] = workshop.checked
    demo.say(f"dry run in the real sandbox, through the real guard: {workshop.checked['outcome']}")
    sent = r.submit(train)
    demo.facts["submitted"] = sent
    demo.say(f"submitted: {sent['moved_bytes'] / 1e6:.0f} of {sent['bytes'] / 1e6:.0f} MB had to move")
    weights = r.initial_weights(train)
    policy = govern(demo, train, "cxr-classification")
    review = run_json("pht-board", "review", policy, "--train", train.bundle, "--weights", weights)
    # Every file of the image stands in it: too much for a summary.
    demo.facts["review"] = {name: value for name, value in review.items() if name != "contents"}
    signers = ", ".join(person for name, person, _ in MEMBERS if name in {"clinician", "patient"})
    demo.say(f"reviewed, signed by {signers}, published; requester's key {workshop.public[:16]}...")
    return train, policy, weights


def train_model(demo: Demo, train: Train, policy: Path, weights: Path) -> dict[str, Any]:
    """d. Federated rounds in three sandboxes at once."""
    r = demo.researcher
    order = r.order(train, policy, "training", rounds=demo.rounds, weights=weights)
    digest = r.send(order, weights)
    demo.say(f"run order {digest[7:19]} signed and sent: {demo.rounds} rounds, three hospitals")
    r.watch(digest)
    results = r.results(digest, demo.output)
    metrics = json.loads((results / "metrics.json").read_bytes())
    demo.facts["training"] = {"order": digest, **metrics}
    show_rounds(demo.console, metrics)
    return {"digest": digest, "order": order}


def evaluate_model(demo: Demo, train: Train) -> None:
    """d. The evaluation train on the testing patients."""
    r = demo.researcher
    sent = r.submit(train)
    share = sent["moved_bytes"] / sent["bytes"]
    demo.facts["second_train_moved"] = {
        "bytes": sent["bytes"],
        "moved": sent["moved_bytes"],
        "share": round(share, 5),
    }
    demo.say(f"second train on the same base: {share:.3%} of its bytes had to move")
    # Which patients are kept for the test is drawn anew in each demo: of about 57 in a hospital a quarter, now and then below five.
    policy = govern(demo, train, "cxr-evaluation", {"data.minimum_patients": 2})
    weights = demo.output / "model.safetensors"
    digest = r.send(r.order(train, policy, "evaluation", weights=weights), weights)
    r.watch(digest)
    out = r.results(digest, demo.output / "evaluation")
    demo.facts["evaluation"] = {"order": digest, **json.loads((out / "metrics.json").read_bytes())}
    show_test(demo.console, demo.facts["evaluation"])


def close_books(demo: Demo) -> None:
    """g. Each station's verified audit and ledger, and the summary."""

    def close(hospital: Hospital) -> dict[str, Any]:
        folder = demo.output / hospital.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(hospital.home / "card.json", folder / "card.json")
        views = {}
        for chain in ("audit", "egress"):
            hospital.call(chain, "export", folder / f"{chain}.jsonl")
            views[chain] = run_json(
                "pht-station", chain, "verify", "--file", folder / f"{chain}.jsonl", "--home", hospital.home
            )
        return views

    hospitals = demo.consortium.hospitals
    with ThreadPoolExecutor(len(hospitals)) as pool:
        books = dict(zip((hospital.name for hospital in hospitals), pool.map(close, hospitals), strict=True))
    demo.facts["chains"] = books
    for name, views in books.items():
        demo.say(
            f"{name}: audit of {views['audit']['entries']} entries and egress ledger of "
            f"{views['egress']['entries']} entries, unbroken, head signed by the station"
        )


def show_register(demo: Demo, name: str = "register") -> None:
    """d, g. What the public reads: the register of what is permitted now, and of what was withdrawn."""
    register, hospital = demo.output / name, demo.consortium.hospitals[0].name
    written = run_json(
        "pht-board", "site", "--repository", demo.consortium.repository, "--out", register,
        "--contact", f"{hospital}=privacy@{hospital}.example",
    )  # fmt: skip
    demo.facts[name] = {"studies": written["studies"], "files": len(written["files"])}
    demo.say(
        f"public register in Dutch and English ({name}): {written['studies']} studies, {len(written['files'])} files"
    )


def give_evidence(demo: Demo, order: str) -> None:
    """g. One hospital's evidence of the training run, verified by somebody who has the board's root and nothing else."""
    hospital = demo.consortium.hospitals[0]
    pack = demo.output / f"evidence-{hospital.name}.zip"
    hospital.call("evidence", order, pack)
    shutil.copy(demo.consortium.tuf_root, demo.output / "1.root.json")
    verdict = run_json("pht-board", "evidence", "verify", pack, "--root", demo.output / "1.root.json")
    demo.facts["evidence"] = {"holds": verdict["holds"], "releases": len(verdict["run"]["releases"])}
    demo.say(
        f"{hospital.name}'s evidence of the training run verifies from the board's root alone: "
        f"{len(verdict['run']['releases'])} releases, {pack.stat().st_size:,} bytes"
    )


def perform(demo: Demo, data: Path) -> None:
    """The whole demo, in order; the researcher works at home and the hospitals take images in meanwhile."""
    with ThreadPoolExecutor(2) as meanwhile:
        working = meanwhile.submit(work_at_home, demo)
        with demo.step("found", "a. A board, an orchestrator, three hospitals"):
            found(demo, data)
        taking = meanwhile.submit(take_in, demo)
        with demo.step(
            "govern",
            "b. The train: built, dry-run, reviewed, signed, published; radiographs come in meanwhile",
        ):
            workshop = working.result()
            train, policy, weights = prepare_train(demo, workshop)
        with demo.step("intake", "c. Radiographs in: pseudonymised, with consent and eCRF labels"):
            show_intake(demo, taking.result())
    with demo.step("train", f"d. {demo.rounds} federated rounds in three sandboxes at once"):
        ordered = train_model(demo, train, policy, weights)
    with demo.step("evaluate", "d. The test: an evaluation train on patients the model never saw"):
        evaluate_model(demo, workshop.trains["cxr-evaluation"])
        show_register(demo)
    with demo.step(
        "count", "e. An analysis without a program, and the same again after a few patients object"
    ):
        counting.show(demo, govern, workshop.trains["counts"])
    with demo.step("protect", "f. The protection at work: tried for real, refused by code"):
        protection.show(demo, govern, workshop.trains, train, policy, ordered["order"])
    with demo.step("books", "g. What is left behind"):
        close_books(demo)
        show_register(demo, "register-after-withdrawals")
        give_evidence(demo, ordered["digest"])


def radiographs(choice: Path | None, scratch: Path, console: Console) -> Path:
    """Return the radiographs to use: the folder named, the shared ones, or generated ones."""
    if choice is not None:
        missing = [name for name in HOSPITALS if not (choice / name / "dicom").is_dir()]
        if missing:
            sys.exit(f"{choice}: needs a folder {missing[0]}/dicom with ecrf.csv and consent.csv beside it")
        return choice
    if SHARED.is_dir():
        return SHARED
    console.print("no shared radiographs here: generating some with a learnable finding")
    run("pht-train", "phantoms", scratch / "radiographs", "--hospitals", 3, "--patients", 60)
    return scratch / "radiographs"


def show_logs(consortium: Consortium, lines: int = 12) -> None:
    """Show how each party's log ends: what a program was told is often not all there is to say."""
    for log in sorted(consortium.root.rglob("*.log")):
        ends = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        sys.stderr.write(
            "\n".join(
                [f"the end of {log.relative_to(consortium.root)}:", *(f"  {line[:300]}" for line in ends), ""]
            )
        )


def main() -> int:
    """Parse, perform, write the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--phantoms", action="store_true", help="generate radiographs though others are there"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the parties' folders")
    choices = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    start = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="pht-demo-"))
    # Each station's services run under users of their own and have to get at their folder.
    scratch.chmod(0o755)
    output = choices.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # As a test it has the same patients in the same splits every time; shown on somebody's own images it is what hospitals get.
    consortium = Consortium(scratch / "consortium", fixed_keys=choices.phantoms)
    consortium.root.mkdir()
    demo = Demo(consortium, Researcher(consortium), output, choices.rounds, console)
    try:
        data = scratch / "radiographs"
        if choices.phantoms:
            run("pht-train", "phantoms", data, "--hospitals", 3, "--patients", 60)
        else:
            data = radiographs(choices.data, scratch, console)
        demo.facts["data"] = "generated" if data.is_relative_to(scratch) else data.name
        with stopping(consortium.servers):
            perform(demo, data)
    except ProgramError:
        show_logs(consortium)
        raise
    finally:
        if choices.keep:
            console.print(f"the parties' folders are kept in {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    demo.seconds["total"] = round(time.monotonic() - start, 1)
    write_summary(demo.output, demo.facts, demo.seconds, COLLECTION)
    console.rule("[bold]done", align="left")
    console.print(
        f"  {demo.seconds['total']:.0f} s; results in {choices.output}: model.safetensors, metrics.json,"
    )
    console.print(
        "  metrics.png, provenance.json, evaluation/, hospital-*/audit.jsonl and egress.jsonl, summary.json,"
    )
    console.print("  evidence-hospital-a.zip with 1.root.json, and the public register: register/index.html,")
    console.print("  with what it says after the withdrawals: register-after-withdrawals/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
