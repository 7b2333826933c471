"""The egress guard: the one place where a `Release` is made (invariant I1).

It takes what hostile code answered and gives what may leave, or what was withheld and why. It decides by the contract and by
the station's own counts; nothing that the train says about itself is believed. Where the policy has noise, what passed every
rule is charged to the patients and leaves with noise (`station.egress.privacy.blurring`), or does not leave. Fails closed: what does not parse, what
is not declared, what is not permitted does not pass. No input makes it raise anything but `StorageError`.

Needs no database and no settings: the researcher's dry run (`pht-train check`) is the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from policies.documents import canonical_json
from policies.order import Stage
from policies.policy import DifferentialPrivacy
from policies.refusals import Reason, RefusalCode
from policies.wire.instructions import MAX_REPLY_BYTES
from station.cohorts.roster import Roster
from station.egress.analyses.tally import Tally, countable
from station.egress.contract import STAGES_OF_KIND, CohortCounts, ReleaseContract, rounded_examples
from station.egress.figures import Figures, check_figures, count_figures
from station.egress.privacy.blurring import REPLY_ROOM, Blurring, Passed, nobody_charges
from station.egress.privacy.drawing import Charge
from station.egress.release import Decimal, Release, ReleasedArrays, Suppressed, Withheld
from station.egress.review.parked import ParkedRelease, beside_of
from station.egress.training.noising import MeasuredUpdate, measure_update
from station.egress.training.updates import release_update

_HEAD_KEYS: Final = {"type", "id", "metrics", "rows", "error"}
_MOST_REASONS: Final = 16


@dataclass(frozen=True, slots=True)
class GuardRequest:
    """What was asked of the train, in the station's own words.

    Attributes:
        order_digest: whose run.
        round: of the run, from 1.
        stage: what was asked.
        inbound: the weights the train was given; None where it was given none.
        out: the file to write the released deltas to; its folder exists and is the station's alone.
    """

    order_digest: str
    round: int
    stage: Stage
    inbound: Path | None
    out: Path


class Guard:
    """Holds replies to a contract.

    Args:
        contract: what may leave.
        counts: the station's own counts of the cohort the train was given.
        roster: the cohort's patients: whose rows a train states, where it states any.
        charge: charges every patient for noise, durably; without one nothing leaves that needs noise.
    """

    def __init__(
        self,
        contract: ReleaseContract,
        counts: CohortCounts,
        roster: Roster | None = None,
        charge: Charge = nobody_charges,
    ) -> None:
        self._contract = contract
        self._counts = counts
        self._roster = roster
        self._charge = charge

    def check(self, request: GuardRequest, reply_head: object, arrays: Path | None) -> Release | Withheld:
        """Judge one reply.

        1. The contract is one under which something may leave, and the stage one of its kind.
        2. The cohort has the patients that the policy asks for.
        3. The head is a reply without an error, of known keys.
        4. Metrics keep their rules, and rows are those of the cohort's patients (`station.egress.figures`).
        5. Arrays come where the contract has them, and keep theirs (`station.egress.training.updates`).
        6. All together stay under the policy's ceiling.
        7. Where the policy has noise, every patient is charged for it, and all of it leaves with noise.

        Args:
            request: what was asked.
            reply_head: the JSON head of the train's reply, untrusted.
            arrays: the file the train's arrays were read to, untrusted; None where it sent none.

        Raises:
            StorageError: a file cannot be read or written.
        """
        if reasons := self._problems_beforehand(request.stage):
            return Withheld(reasons)
        if reason := _problem_with_head(reply_head):
            return Withheld((reason,))
        head = reply_head if isinstance(reply_head, dict) else {}
        figures = check_figures(self._contract, self._counts, request.stage, head.get("metrics", {}))
        tally = self._tally(head.get("rows", {}))
        wrong = [tally] if isinstance(tally, Reason) else []
        if broken := [*figures.reasons, *wrong, *self._arrays_out_of_place(request, arrays)]:
            return Withheld(tuple(broken[:_MOST_REASONS]))
        if self._contract.privacy is not None:
            rows = tally if isinstance(tally, Tally) else None
            return self._blurred(request, self._contract.privacy, figures, rows, arrays)
        if isinstance(tally, Tally):
            figures.add(count_figures(self._contract, tally))
        released: ReleasedArrays | None = None
        if arrays is not None and request.inbound is not None:
            update = release_update(self._contract, arrays, request.inbound, request.out)
            if isinstance(update, tuple):
                return Withheld(update)
            released = ReleasedArrays(update.path, update.digest, update.size)
        return self._within_ceiling(request, figures, released)

    def count(self, request: GuardRequest, tally: Tally) -> Release | Withheld:
        """Make a release of what the station counted of patients' rows; the train states nothing in it.

        1. The contract is one under which something may leave, and its train one of rows.
        2. The cohort has the patients that the policy asks for, and no more than a bound on bits can be given for.
        3. Small counts are hidden (`station.egress.analyses.counting`).
        4. All together stay under the policy's ceiling.
        Where the policy has noise, nothing is hidden: every patient is charged, and every cell leaves with noise.
        """
        if reasons := self._problems_beforehand(request.stage):
            return Withheld(reasons)
        if not self._contract.aggregates:
            return Withheld((Reason(RefusalCode.RELEASE_NOT_PERMITTED, "the train declares no aggregates"),))
        if not countable(tally):
            return Withheld((Reason(RefusalCode.RELEASE_TOO_LARGE, "more patients than can be counted"),))
        if self._contract.privacy is not None:
            return self._blurred(request, self._contract.privacy, Figures(), tally, None)
        return self._within_ceiling(request, count_figures(self._contract, tally), None)

    def _blurred(
        self,
        request: GuardRequest,
        privacy: DifferentialPrivacy,
        figures: Figures,
        tally: Tally | None,
        arrays: Path | None,
    ) -> Release | Withheld:
        """Charge for what passed every rule, and let it leave with noise; what does not pass costs nothing."""
        update: MeasuredUpdate | None = None
        if arrays is not None and request.inbound is not None:
            measured = measure_update(self._contract, arrays, request.inbound)
            if isinstance(measured, tuple):
                return Withheld(measured)
            update = measured
        blurring = Blurring(privacy, self._contract, self._counts, self._charge)
        blurred = blurring.blurred(Passed(request.stage, figures, tally, update), request.out)
        if isinstance(blurred, tuple):
            return Withheld(blurred)
        written = blurred.arrays
        released = None if written is None else ReleasedArrays(written.path, written.digest, written.size)
        return self._within_ceiling(request, blurred.figures, released)

    def _tally(self, rows: object) -> Tally | Reason | None:
        """Bind the rows that a train states to the cohort's patients; None where it is to state none, and states none."""
        manifest = self._contract.manifest
        if manifest is None or manifest.program in {None, "map"}:
            stated = not isinstance(rows, Mapping) or len(rows) > 0
            return Reason(RefusalCode.RELEASE_ROWS_SHAPE, "the train declares no rows") if stated else None
        if self._roster is None:
            return Reason(RefusalCode.RELEASE_ROWS_SHAPE, "the station has no list of the cohort's patients")
        tally = Tally(manifest, self._roster)
        problem = tally.take(rows)
        return tally if problem is None else Reason(RefusalCode.RELEASE_ROWS_SHAPE, problem)

    def _problems_beforehand(self, stage: Stage) -> tuple[Reason, ...]:
        contract = self._contract
        if contract.problems:
            return contract.problems
        if stage not in get_args(Stage) or stage not in STAGES_OF_KIND[contract.kind]:
            return (Reason(RefusalCode.ORDER_KIND, f"an {contract.kind} train has no such stage"),)
        if self._counts.patients < contract.minimum_patients:
            return (
                Reason(RefusalCode.RELEASE_TOO_FEW_PATIENTS, "the cohort has fewer than the policy asks"),
            )
        if self._examples(stage) == 0:
            return (Reason(RefusalCode.RELEASE_TOO_FEW_PATIENTS, "the stage has no images to compute on"),)
        return ()

    def _arrays_out_of_place(self, request: GuardRequest, arrays: Path | None) -> list[Reason]:
        if not self._contract.releases_tensors(request.stage):
            if arrays is not None:
                return [Reason(RefusalCode.RELEASE_TENSOR_EXTRA, "this stage returns no arrays")]
            return []
        if arrays is None:
            return [Reason(RefusalCode.RELEASE_TENSOR_MISSING, "the reply has no arrays")]
        if request.inbound is None or self._contract.tensors is None:
            return [
                Reason(
                    RefusalCode.RELEASE_NOT_PERMITTED,
                    "there are no inbound weights to take a difference from",
                )
            ]
        return []

    def _within_ceiling(
        self, request: GuardRequest, figures: Figures, arrays: ReleasedArrays | None
    ) -> Release | Withheld:
        numbers = len(canonical_json({"metrics": figures.metrics, "tables": figures.tables}))
        total = numbers + (arrays.size if arrays is not None else 0)
        if total > self._contract.maximum_bytes or numbers > MAX_REPLY_BYTES - REPLY_ROOM:
            if arrays is not None:
                arrays.path.unlink(missing_ok=True)
            ceiling = self._contract.maximum_bytes
            text = f"{total:,} bytes, of which {numbers:,} of numbers; release.maximum_bytes is {ceiling:,}"
            return Withheld((Reason(RefusalCode.RELEASE_TOO_LARGE, text),))
        return Release(
            order_digest=request.order_digest,
            round=request.round,
            stage=request.stage,
            arrays=arrays,
            metrics=figures.metrics,
            tables=figures.tables,
            suppressed=tuple(figures.suppressed),
            num_examples=rounded_examples(self._examples(request.stage)),
            rules_digest=self._contract.rules_digest,
            counted=figures.counted,
            capacity_bits=self._contract.capacity_bits[request.stage],
        )

    def _examples(self, stage: Stage) -> int:
        """Images, or with noise patients: of images one patient can have many, and their number gets no noise."""
        counts = [self._counts.of(split) for split in self._contract.example_splits(stage)]
        private = self._contract.privacy is not None
        return sum(count.patients if private else count.images for count in counts)


def release_again(parked: ParkedRelease, arrays: ReleasedArrays | None) -> Release:
    """Make the release again that the guard made and that waited for a person.

    Args:
        parked: as it was parked; whoever calls holds its bytes to the digest they were parked under.
        arrays: the file that was parked beside it, held to its digest too.
    """
    return Release(
        order_digest=parked.order_digest,
        round=parked.round,
        stage=parked.stage,
        arrays=arrays,
        metrics={
            key: value if isinstance(value, int) else Decimal(value) for key, value in parked.metrics.items()
        },
        tables=parked.tables,
        suppressed=tuple(Suppressed(item.key, item.code) for item in parked.suppressed),
        num_examples=parked.num_examples,
        rules_digest=parked.rules_digest,
        capacity_bits=parked.capacity_bits,
        beside=beside_of(parked),
    )


def keep_here(release: Release, *reasons: Reason) -> Withheld:
    """Withhold what the rules would have let leave, by another look's reasons; its arrays are gone afterwards."""
    if release.arrays is not None:
        release.arrays.path.unlink(missing_ok=True)
    return Withheld(reasons)


def _problem_with_head(head: object) -> Reason | None:
    if not isinstance(head, dict):
        return Reason(RefusalCode.RELEASE_UNPARSEABLE, "the reply's head is not an object")
    if (
        not all(isinstance(key, str) and key in _HEAD_KEYS for key in head)
        or head.get("type", "reply") != "reply"
    ):
        return Reason(RefusalCode.RELEASE_UNPARSEABLE, "the reply's head has other keys than a reply has")
    if head.get("error") is not None:
        return Reason(RefusalCode.RELEASE_UNPARSEABLE, "the train answered with an error")
    return None
