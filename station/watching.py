"""What the compute service looks after between messages and in the middle of one: threads that ask again and again.

Knows no rule: it is given what to ask. Each look has a thread of its own, so that no slow one (a mirror, an orchestrator)
delays another.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from policies.errors import PhtError
from station.admission.gatekeeper import Gatekeeper

log = logging.getLogger(__name__)

_POLICIES_AT_MOST_EVERY_S = 1.0

Step = Callable[[], object]


def watch(name: str, steps: tuple[Step, ...], every_s: float, stop: threading.Event) -> None:
    """Take steps one after the other, at once and again, until told to stop.

    Args:
        name: of the look, for the thread.
        steps: what to do; one that fails is logged and keeps no other from being taken.
        every_s: between two looks.
        stop: set at the end.
    """

    def look() -> None:
        while not stop.wait(every_s):
            for step in steps:
                _try(step)

    _start(name, look)


def watch_policies(gatekeeper: Gatekeeper, every_s: float, stop: threading.Event) -> None:
    """Ask the policy repository again, soon after each message too.

    No message waits for the mirror, but each has it asked while the train works: a withdrawal ends the very message that
    comes after it. What an answer ends has a look of its own, which waits for no mirror.
    """

    def look() -> None:
        while not stop.wait(_POLICIES_AT_MOST_EVERY_S):
            after_a_message = gatekeeper.asked.wait(every_s)
            gatekeeper.asked.clear()
            if stop.is_set():
                return
            _try(partial(gatekeeper.policy_set, fresh=after_a_message))

    _start("policies", look)


def _start(name: str, look: Callable[[], None]) -> None:
    threading.Thread(target=look, name=f"watch-{name}", daemon=True).start()


def _try(step: Step) -> None:
    try:
        step()
    except PhtError as error:
        log.error("watch.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
    except Exception:  # the outermost boundary of these threads: they must go on watching
        log.exception("watch.bug")
