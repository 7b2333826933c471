"""What is told and counted where a message brings no release: a failed train, a withheld answer, run hours that are over.

How a train fails, and what of it the guard withholds, is the train's to choose: each counts as a failed message, and the last one that the
hospital allows ends the run here. Under differential privacy none of it leaves but that it failed.
"""

import contextlib
from dataclasses import dataclass

from policies.errors import StateError
from policies.refusals import RefusalCode
from policies.wire.instructions import Instruction, StationReply, Status
from station.admission.gatekeeper import Admitted
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.egress.release import Withheld
from station.runs.outbox import Outbox
from station.runs.repository import STATION_ACTOR, Run, RunRepository
from station.runs.states import RunEvent
from station.sandbox.failure_codes import code_of
from station.sandbox.spec import ExitClass, TrainFailure


@dataclass(frozen=True, slots=True)
class Failing:
    """Counts what failed, and says what may be told of it.

    Attributes:
        failed_messages: after how many the hospital ends a run.
    """

    runs: RunRepository
    audit: AuditLog
    outbox: Outbox
    failed_messages: int

    def failed(
        self, instruction: Instruction, run: Run, failure: TrainFailure, admitted: Admitted
    ) -> StationReply:
        """Count a failed message; the last one that the hospital allows ends the run here.

        A container that went with the launcher or the engine is no failure of the train's, and is told as what it is.
        """
        if failure.exit_class is ExitClass.TAKEN_AWAY:
            return self.outbox.status(instruction, Status.FAILED, RefusalCode.ENGINE_UNAVAILABLE, run)
        release = admitted.verified.in_force.policy.release
        code: str = code_of(failure).value
        detail = failure.detail
        if (
            failure.exit_class is ExitClass.DECLARED_ERROR
            and failure.error_code in admitted.manifest.error_codes
        ):
            # One of at most 32 codes that the signed manifest lists. Its name leaves where the policy says so.
            code = RefusalCode.TRAIN_DECLARED_ERROR.value
            if failure.error_code in release.error_codes:
                code = failure.error_code
            else:
                detail = f"it answered {failure.error_code}, which the policy does not release"
        self._count(run, code, detail)
        if release.differential_privacy is not None:
            # How it failed is the train's to choose, and no noise blurs it: outside it failed, and no more.
            code = RefusalCode.TRAIN_FAILED.value
        return self.outbox.status(instruction, Status.FAILED, code, run)

    def count_failure(self, run: Run, failure: TrainFailure) -> None:
        """Count a container that did not start, like a failed message: it cost the hospital as much."""
        if failure.exit_class is ExitClass.TAKEN_AWAY:
            return
        self._count(run, code_of(failure).value, failure.detail)

    def withheld(
        self, instruction: Instruction, run: Run, withheld: Withheld, admitted: Admitted
    ) -> StationReply:
        """Audit what the guard withholds, count it as a failure where the train could choose it, and return the status that may leave."""
        detail = "; ".join(f"{reason.code} {reason.detail}".strip() for reason in withheld.reasons)
        self.audit.append(
            AuditRecord(
                event=AuditEvent.RELEASE_WITHHELD,
                actor=STATION_ACTOR,
                outcome="refused",
                on_behalf_of=run.requester,
                purpose=run.purpose,
                object=run.order_digest,
                codes=tuple(dict.fromkeys(reason.code.value for reason in withheld.reasons)),
                numbers={"round": instruction.round},
                detail=detail[:2000],
            )
        )
        if withheld.code is RefusalCode.BUDGET_PRIVACY:
            # The patients' budget is used up, which is no failure of the train's and not of its choosing.
            return self.outbox.status(instruction, Status.WITHHELD, withheld.code, run)
        # Counted as a failure: which rule withholds is a signal that a train could send on purpose.
        self._count(run, withheld.code.value, "withheld")
        if admitted.verified.in_force.policy.release.differential_privacy is not None:
            return self.outbox.status(instruction, Status.FAILED, RefusalCode.TRAIN_FAILED, run)
        return self.outbox.status(instruction, Status.WITHHELD, withheld.code, run)

    def out_of_time(self, instruction: Instruction, run: Run) -> StationReply:
        """End a run whose containers have used up what its policy grants; where it has ended already, that stands."""
        with contextlib.suppress(StateError):
            self.runs.transition(run.order_digest, RunEvent.FAIL, code=RefusalCode.RUN_TIME_SPENT)
        return self.outbox.status(instruction, Status.FAILED, RefusalCode.RUN_TIME_SPENT, run)

    def _count(self, run: Run, code: str, detail: str) -> None:
        failures = self.runs.record_failure(run.order_digest, code, detail=detail)
        if failures >= self.failed_messages:
            # Where the operator stopped or held it meanwhile, that stands.
            with contextlib.suppress(StateError):
                self.runs.transition(run.order_digest, RunEvent.FAIL, code=RefusalCode.TRAIN_FAILED_TOO_OFTEN)
