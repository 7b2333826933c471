"""Preparations under way in threads of their own: an orchestrator's question waits for none of them.

Each is answered for once: what it was refused for is told to the next `prepare`, and the one after has the order looked at again.
"""

import logging
import threading

from policies.errors import NetworkError, PhtError
from policies.refusals import Permitted, RefusalCode, Refused
from station.admission.gatekeeper import Admitted
from station.runs.failing import Failing
from station.runs.prepared import Prepared
from station.runs.repository import Run, RunRepository
from station.runs.states import RunState
from station.runs.verdicts import code_of
from station.runs.warm import WarmRuns
from station.sandbox.spec import ExitClass, TrainStartError

log = logging.getLogger(__name__)


class BackgroundPreparations:
    """Prepares orders, one thread each, under the order's lock."""

    def __init__(self, runs: RunRepository, warm: WarmRuns, failing: Failing) -> None:
        self._runs = runs
        self._warm = warm
        self._failing = failing
        self._workers: dict[str, threading.Thread] = {}
        self._untold: dict[str, Refused] = {}

    def orders(self) -> frozenset[str]:
        """The orders whose preparation is under way, or about to begin."""
        return frozenset(self._workers)

    def has(self, order_digest: str) -> bool:
        """Whether an order's preparation is under way, or about to begin."""
        return order_digest in self._workers

    def take_untold(self, order_digest: str) -> Refused | None:
        """Return what an order's preparation was refused for, unless that was told."""
        return self._untold.pop(order_digest, None)

    def begin(self, run: Run, admitted: Admitted) -> None:
        """Prepare an order in a thread of its own."""
        thread = threading.Thread(
            target=self._prepare, args=(run, admitted), name=f"prepare-{run.order_digest[7:15]}"
        )
        thread.daemon = True
        self._workers[run.order_digest] = thread
        thread.start()

    def _prepare(self, run: Run, admitted: Admitted) -> None:
        with self._warm.lock(run.order_digest):
            try:
                outcome = self._make_ready(run, admitted)
            except NetworkError as error:
                # It stays in preparation: the next prepare tries again.
                log.warning("preparation.network", extra={"reason": error.message})
            except PhtError as error:
                log.error("preparation.fault", extra={"reason": type(error).__name__})  # noqa: TRY400
            except Exception:  # the outermost boundary of this thread: the orchestrator must hear of it
                log.exception("preparation.bug")
                self._untold[run.order_digest] = Refused.because(RefusalCode.STATION_FAULT)
            else:
                current = self._runs.get(run.order_digest)
                if isinstance(outcome, Refused) and current and current.state is RunState.REFUSED:
                    self._untold[run.order_digest] = outcome
            finally:
                del self._workers[run.order_digest]

    def _make_ready(self, run: Run, admitted: Admitted) -> Permitted[Prepared] | Refused:
        """Prepare; a fault that asking again at once would not mend is a refusal."""
        try:
            return self._warm.make_ready(run, admitted)
        except NetworkError:
            raise
        except TrainStartError as error:
            self._failing.count_failure(run, error.failure)
            taken = error.failure.exit_class is ExitClass.TAKEN_AWAY
            code = RefusalCode.ENGINE_UNAVAILABLE if taken else RefusalCode.TRAIN_CRASHED
            refused = Refused.because(code, error.message)
        except PhtError as error:
            log.error("preparation.failed", extra={"reason": type(error).__name__})  # noqa: TRY400
            refused = Refused.because(code_of(error), error.message)
        self._warm.refuse(run.order_digest, refused)
        return refused
