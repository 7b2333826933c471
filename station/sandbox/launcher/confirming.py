"""After a container's start, and before anybody hears of it: the kernel shows what was asked for, or it is refused."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine import kernel
from station.sandbox.engine.api import Engine
from station.sandbox.engine.dialect import Json, Terms
from station.sandbox.engine.kernel import Asked
from station.sandbox.engine.mounts import Place
from station.sandbox.engine.procfs import view_of
from station.sandbox.gpu import devices
from station.sandbox.gpu.model import LeasedGpu
from station.sandbox.launcher.folders import places_of

LOG = logging.getLogger("station.launcher")

GVISOR: Final = "runsc"
_POLL_S: Final = 0.02
_NAMED: Final = 12


def held_to(body: Json, container_id: str, terms: Terms, places: Mapping[str, Place]) -> Asked:
    """Return what a container is held to.

    Args:
        body: the request, in the dialect's words.
        container_id: what the engine called it.
        terms: what the launcher added.
        places: where its folders lie, as they were when they were checked.
    """
    host: Any = body["HostConfig"]
    return kernel.asked_of(
        body,
        container_id,
        places_of(host["Mounts"], places),
        virtual=terms.runtime == GVISOR,
        devices=_numbers_of(terms.gpu),
        is_driver_mount=lambda target: devices.is_driver_mount(target, terms.gpu),
    )


def _numbers_of(gpu: LeasedGpu | None) -> frozenset[str]:
    """Return the major and minor numbers of a leased device's nodes."""
    found = set()
    for node in gpu.nodes if gpu is not None else ():
        with contextlib.suppress(OSError):
            number = os.stat(node).st_rdev  # noqa: PTH116 - a node, not a file
            found.add(f"{os.major(number)}:{os.minor(number)}")
    return frozenset(found)


def confirm(engine: Engine, container_id: str, asked: Asked) -> int | None:
    """Wait until the kernel shows a container as it was asked for.

    Args:
        engine: where it was started.
        container_id: which.
        asked: what it is held to.

    Returns:
        The user of its first process on this host; ``None`` when it has ended already.

    Raises:
        RefusedError: the kernel shows it otherwise.
        UnavailableError: the engine does not answer.
    """
    started = time.monotonic()
    pause = threading.Event()
    while True:
        state = (engine.container(container_id) or {}).get("State") or {}
        if not state.get("Running"):
            return None
        view = view_of(int(state.get("Pid") or 0), container_id, with_others=asked.virtual)
        found = kernel.problems(view, asked)
        if not found and view is not None:
            return kernel.user_of(view)
        if time.monotonic() - started >= kernel.patience_s(found, view, asked):
            LOG.error("container.not_as_asked", extra={"problems": list(found[:_NAMED])})
            raise RefusedError(
                RefusalCode.ENGINE_UNFIT,
                f"the kernel shows another container than was asked for: {', '.join(found[:_NAMED])}",
                hint="The engine, or its runtime, does not enforce this here: correct it, or use another one.",
            )
        pause.wait(_POLL_S)
