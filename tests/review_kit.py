"""A station whose policy, or hospital, has a person look at every release."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogue_log import patient
from cohort_files import KEY
from egress_documents import Bench, head, moved, policy
from safetensors.numpy import load_file
from station_kit import PATIENTS, SandboxSimulator, StationKit, order_digest

from policies.order import Stage
from policies.refusals import Permitted
from policies.splits import Split
from policies.wire.instructions import Kind, StationReply
from station.catalogue import Standing
from station.egress.records.ledger import MessageType
from station.egress.release import Release
from station.egress.review.reviews import Review, ReviewState
from station.settings.review import ReviewSettings

HOURS = 2
REVIEWED = {"release.human_review": True, "release.review_hours": HOURS}
PENDING = ("pending", "REVIEW_PENDING")


class Counting:
    """A train whose every answer is another: what leaves tells which answer it is."""

    def __init__(self) -> None:
        self.answers = 0

    def __call__(self, request: Any, cohort: Path) -> Any:
        del cohort
        self.answers += 1
        if request.kind == "evaluate":
            return {"auc": self.answers / 1000}, {}, None
        return {"loss": self.answers / 1000}, {}, moved(load_file(request.arrays), by=0.01 * self.answers)


def reviewed(folder: Path, people: int = 1, **changes: Any) -> StationKit:
    """A station with a policy under which a person looks at each release, for two hours at most."""
    changes.setdefault("review", ReviewSettings(people=people))
    kit = StationKit.make(folder, changes.pop("policy", REVIEWED), **changes)
    kit.sandbox.train = Counting()
    return kit


def asked(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1
) -> tuple[str, str | None]:
    """What a message is answered: status and code."""
    reply, _ = kit.message(envelope, kind, round_)
    return reply.status.value, reply.code


def parked(kit: StationKit) -> bytes:
    """An order whose first answer waits for a person; returns its envelope."""
    envelope = kit.ready()
    assert asked(kit, envelope) == PENDING
    return envelope


def review(kit: StationKit, number: int = 1) -> Review:
    return kit.reviewing.queue.get(number)


def waiting(kit: StationKit) -> list[int]:
    return [one.number for one in kit.reviewing.queue.list((ReviewState.WAITING,))]


def left(kit: StationKit) -> list[tuple[str | None, int | None]]:
    """Order and round of every release that is in the egress ledger for the first time."""
    return [
        (item.entry.order_digest, item.entry.round)
        for item in kit.ledger.entries(limit=100_000)
        if item.entry.type is MessageType.RELEASE and not item.entry.repeated
    ]


def parked_files(kit: StationKit) -> list[str]:
    return sorted(path.name for path in kit.paths.reviews.iterdir())


def nothing_left(kit: StationKit) -> None:
    """Nothing was recorded, entered in the ledger or pushed, and nothing that waited is on the disk any more."""
    assert (left(kit), kit.releases.list(), parked_files(kit)) == ([], [], [])
    assert list(kit.paths.releases.iterdir()) == []
    for one in kit.reviewing.queue.list():
        assert one.state is not ReviewState.RELEASED


def in_training() -> int:
    """A patient whom this station's key puts among the training cases."""
    return next(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.TRAINING)


def withdraws(kit: StationKit, *numbers: int) -> None:
    """These patients object, and no others; intake hands the new state over."""
    kit.intake.consent(**{f"p{number}": "objection" for number in numbers or (in_training(),)})


def later(kit: StationKit, **delta: float) -> None:
    """Time passes, and the board's witness vouches again."""
    kit.clock.forward(**delta)
    kit.policy_is_fresh()
    kit.clock.forward(seconds=2)


def digest(envelope: bytes) -> str:
    return order_digest(envelope)


def loss(reply: StationReply) -> float:
    return float(reply.metrics["loss"])


class Standstill:
    """A station at one moment, to begin from again and again: preparing an order costs a second, this does not.

    Args:
        kit: as it is to be found; it is closed here.
    """

    def __init__(self, kit: StationKit) -> None:
        kit.close()
        self._kit, self._kept = kit, Path(tempfile.mkdtemp(prefix="standstill-"))
        shutil.copytree(kit.folder, self._kept / "folder", symlinks=True)
        self._now, self._orders, self._settings = kit.clock.now, kit.orders, kit.settings
        self._intake = (kit.intake.steps, kit.intake.consents)

    @contextmanager
    def going_on(self) -> Iterator[StationKit]:
        """Yield the station as it was, in a new life."""
        kit = self._kit
        shutil.rmtree(kit.folder)
        shutil.copytree(self._kept / "folder", kit.folder, symlinks=True)
        kit.clock.now, kit.orders, kit.settings = self._now, self._orders, self._settings
        kit.intake.steps, kit.intake.consents = self._intake
        kit.sandbox = SandboxSimulator(train=Counting())
        kit.open()
        try:
            kit.warm.recover()
            yield kit
        finally:
            kit.close()

    def forget(self) -> None:
        """Remove what was kept."""
        shutil.rmtree(self._kept)


@contextmanager
def standing_still(
    folder: Path, people: int = 1, begun: Callable[[StationKit], bytes] = parked
) -> Iterator[tuple[Standstill, bytes]]:
    """Yield a station where so many people have to release, and the order that it has begun: its first answer waits."""
    kit = reviewed(folder, people=people)
    envelope = begun(kit)
    kept = Standstill(kit)
    yield kept, envelope
    kept.forget()


def park_one(
    kit: StationKit, envelope: bytes, round_: int, stage: Stage = "train", answer: int = 1
) -> Review:
    """Park a release of the real guard for an order, as a warm run would; `answer` is in its numbers.

    The guard is asked about a model of its own; patients are all that the order may use now.
    """
    folder = kit.paths.work / f"bench-{round_}-{stage}-{answer}"
    folder.mkdir(exist_ok=True)
    bench = Bench(folder)
    guard = bench.guard(rules=policy(metrics=["loss"]))
    asked_for = replace(bench.request(round_=round_), order_digest=order_digest(envelope))
    release = guard.check(
        asked_for,
        head(metrics={"loss": answer / 1000}),
        bench.answer(moved(bench.inbound_tensors, by=0.01 * answer)),
    )
    assert isinstance(release, Release), release
    run, known = kit.runs.get(order_digest(envelope)), kit.gatekeeper.verify(envelope, fresh=False)
    assert run is not None
    assert isinstance(known, Permitted), known
    manifest = kit.gatekeeper.manifest(known.value)
    assert isinstance(manifest, Permitted)
    used = kit.gatekeeper.still_usable(run, known.value, manifest.value)
    assert isinstance(used, Standing)
    found = kit.reviewing.park(
        replace(release, stage=stage), run, known.value.in_force.policy, used, (1, 0.0), lambda _: None
    )
    assert isinstance(found, Review)
    return found
