"""Who takes part: stations are asked to accept the order, at its begin and when one comes back."""

from collections.abc import Sequence

from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.exchange import Answered, Missing, Outcome, Patience
from orchestrator.federation.orders import RunState
from orchestrator.federation.replies import Rejected, check_reply
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind

_SILENCE_S = 5.0
_LATE_JOINER_S = 2.0


def prepare(run: Carried) -> None:
    """Ask every station to accept the order.

    Raises:
        RunFailedError: too few did.
    """
    timing, needed = run.accepted.timing, run.order.minimum_stations
    run.show(state=RunState.RUNNING, stage="prepare")
    _ask(run, run.order.stations, timing.prepare_s, needed, timing.prepare_grace_s)
    if len(run.stations.ready) < needed:
        raise RunFailedError("TOO_FEW_STATIONS_ACCEPTED")


def let_late_ones_join(run: Carried) -> None:
    """Ask those that were late or restarting and are there now; the others wait no longer than a moment."""
    if late := run.exchange.online(sorted(run.stations.waiting)):
        _ask(run, late, _LATE_JOINER_S, 0, _LATE_JOINER_S)


def _ask(run: Carried, stations: Sequence[str], deadline_s: float, enough: int, grace_s: float) -> None:
    question = run.instruction(Kind.PREPARE, 0, None, deadline_s)
    # Answered at once by a station that is there: a silent one is just coming, and is asked again soon.
    patience = Patience(deadline_s=deadline_s, enough=enough, grace_s=grace_s, silence_s=_SILENCE_S)
    known = run.stations

    def judge(name: str, answered: Answered) -> Outcome:
        verdict = check_reply(answered.reply, question, run.accepted.manifest)
        if isinstance(verdict, Rejected):
            return Missing(verdict.code)
        known.ready.add(name)
        run.show(accepted=tuple(sorted(known.ready)))
        return answered

    for name, outcome in run.exchange.ask(question, None, stations, patience, judge).items():
        known.note_correlation(name, outcome)
        if isinstance(outcome, Answered):
            known.waiting.pop(name, None)
        elif outcome.code in {"LATE", "LOST", RefusalCode.OPERATOR_PENDING}:
            known.waiting[name] = outcome.code
        else:
            known.refused[name] = outcome.code
    run.show(missing=known.missing, correlation=known.correlation)
