"""Who takes part: stations are asked to accept the order, at its begin and when one comes back."""

import logging
from collections.abc import Sequence

from orchestrator.federation.answers import LATE, LOST, Answered, Missing, Outcome, Patience
from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.orders import RunState
from orchestrator.federation.received import heals, is_finished_there
from orchestrator.federation.replies import Rejected, check_reply
from orchestrator.federation.speeds import OnlyLate
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind

log = logging.getLogger(__name__)

_SILENCE_S = 5.0
_LATE_JOINER_S = 2.0


def prepare(run: Carried) -> None:
    """Ask every station to accept the order.

    Raises:
        RunFailedError: too few did.
    """
    timing, needed = run.accepted.timing, run.order.minimum_stations
    run.show(state=RunState.RUNNING, stage="prepare")
    stations = [name for name in run.order.stations if name not in run.stations.excluded]
    _ask(run, stations, timing.prepare_s, needed, timing.prepare_grace_s)
    if len(run.stations.ready) < needed:
        raise RunFailedError("TOO_FEW_STATIONS_ACCEPTED")


def let_late_ones_join(run: Carried) -> None:
    """Take in who accepted late, and ask those that were late or lost and are there now.

    The others wait no longer than a moment for them, unless without them they are too few.
    """
    for name in sorted(run.stations.joining):
        run.stations.accepted(name)
    run.stations.joining.clear()
    timing, needed = run.accepted.timing, run.order.minimum_stations
    if late := run.exchange.online(sorted(run.stations.waiting)):
        _ask(run, late, timing.prepare_s, 0, _LATE_JOINER_S)
    if len(run.stations.ready) < needed and run.stations.waiting:
        short = needed - len(run.stations.ready)
        _ask(run, sorted(run.stations.waiting), timing.prepare_s, short, timing.prepare_grace_s)


def note_late_acceptances(run: Carried) -> None:
    """Keep who accepted after nobody waited for it any more: it takes part from the next round."""
    for late in run.lates:
        name = late.station
        if late.reply.kind is Kind.PREPARE and name in run.stations.waiting:
            run.stations.joining.add(name)


def _ask(run: Carried, stations: Sequence[str], deadline_s: float, enough: int, grace_s: float) -> None:
    question = run.instruction(Kind.PREPARE, 0, None, deadline_s)
    # Answered at once by a station that is there: a silent one is just coming, and is asked again soon.
    patience = Patience(
        deadline_s=deadline_s,
        enough=enough,
        grace_s=grace_s,
        silence_s=_SILENCE_S,
        speeds=OnlyLate(run.speeds, run.lates),
        begun=run.begun,
    )
    known = run.stations

    def judge(name: str, answered: Answered) -> Outcome:
        if is_finished_there(answered.reply):
            # It takes part by what it released: each message is answered with that, or refused by the same code.
            log.warning("finished_there", extra={"station": name})
            known.accepted(name)
            run.show_stations()
            return answered
        verdict = check_reply(answered.reply, question, run.accepted.manifest, run.accepted.release)
        if isinstance(verdict, Rejected):
            run.exclude(name, verdict.code)
            return Missing(verdict.code, offence=True)
        known.accepted(name)
        run.show_stations()
        return answered

    for name, outcome in run.exchange.ask(question, None, stations, patience, judge).items():
        if isinstance(outcome, Answered):
            continue
        known.note(name, outcome)
        if outcome.offence:
            run.exclude(name, outcome.code)
        elif outcome.code in {LATE, LOST, RefusalCode.OPERATOR_PENDING} or (
            name in run.begun and heals(outcome.code)
        ):
            known.waiting[name] = outcome.code
        else:
            known.leave(name, outcome.code)
    run.show_stations()
