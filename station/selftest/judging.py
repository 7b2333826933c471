"""From what was seen to a verdict. Pure: an attack is stopped only where something was seen to stop it."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from policies.documents import Sequence as Listed
from policies.documents import StrictModel
from station.sandbox.spec import ExitClass, TrainFailure, TrainReply
from station.selftest.report import Attempt, Verdict

_SHOWN: Final = 5
_REFUSED: Final = frozenset({ExitClass.PROTOCOL, ExitClass.TIMEOUT})


class ProbeAnswer(StrictModel):
    """What the hostile train tells of a probe."""

    attempts: Listed[Attempt]
    ended: str


def of_probe(tried: str, answer: TrainReply | TrainFailure, *, may_be_killed: bool) -> tuple[Attempt, ...]:
    """Return what a probe did, from the train's answer.

    Args:
        tried: the attack, in words.
        answer: what the session made of the train's answer.
        may_be_killed: whether being killed for its memory is how this attack is stopped.
    """
    if isinstance(answer, TrainFailure):
        if may_be_killed and answer.exit_class is ExitClass.OUT_OF_MEMORY:
            return (stopped(tried, f"killed: {answer.detail}"),)
        return (
            got(
                tried,
                f"no answer came, so nothing was seen to stop it ({answer.exit_class.value}: {answer.detail})",
            ),
        )
    try:
        told = ProbeAnswer.model_validate(dict(answer.rows))
    except ValidationError:
        return (got(tried, "the answer is none of the hostile train's"),)
    if told.ended == "in time":
        return tuple(told.attempts) or (got(tried, "the probe tells nothing"),)
    if may_be_killed and told.ended == "killed by SIGKILL":
        return (*told.attempts, stopped(tried, "killed by SIGKILL at its memory limit"))
    return (*told.attempts, got(tried, f"the probe {told.ended}"))


def of_lie(tried: str, outcome: TrainReply | TrainFailure) -> tuple[Attempt, ...]:
    """Return what became of a lie, from what the session made of it."""
    if isinstance(outcome, TrainReply):
        return (got(tried, "it was taken for an answer"),)
    seen = f"{outcome.exit_class.value}: {outcome.detail}"
    # A train that was hung up on ends by itself; one that broke ends otherwise and has not lied.
    ended = outcome.exit_class is ExitClass.CRASH and outcome.detail.endswith("exit code 0")
    if (outcome.exit_class in _REFUSED or ended) and outcome.session_ended:
        return (stopped(tried, seen),)
    return (got(tried, f"it was not refused ({seen})"),)


def verdict_of(attempts: Sequence[Attempt]) -> tuple[Verdict, str]:
    """Return the verdict of all attempts together, and what stands behind it.

    >>> verdict_of([Attempt(tried="x", how="stopped", what="EPERM"), Attempt(tried="y", how="got", what="it worked")])
    ('NOT STOPPED', 'y: it worked')
    """
    got = [each for each in attempts if each.how == "got"]
    if got or not attempts:
        return "NOT STOPPED", "; ".join(f"{each.tried}: {each.what}" for each in got) or "nothing was tried"
    stopped = [each.what for each in attempts if each.how == "stopped"]
    if not stopped:
        return "not applicable here", "because " + "; ".join(dict.fromkeys(each.what for each in attempts))
    counted = Counter(stopped).most_common()
    words = [what if count == 1 else f"{what} ({count} times)" for what, count in counted[:_SHOWN]]
    more = len(counted) - _SHOWN
    return "stopped", "; ".join(words) + (f"; and {more} others" if more > 0 else "")


def stopped(tried: str, what: str) -> Attempt:
    """Return an attempt that was seen to be stopped."""
    return Attempt(tried=tried, how="stopped", what=what)


def got(tried: str, what: str) -> Attempt:
    """Return an attempt that got what it must not."""
    return Attempt(tried=tried, how="got", what=what)


def skipped(tried: str, because: str) -> Attempt:
    """Return an attempt that cannot be made here."""
    return Attempt(tried=tried, how="skipped", what=because)
