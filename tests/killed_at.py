"""A process that is killed at a given call, by the kernel."""

import importlib
import os
import signal
from typing import Any


def kill_at(step: str, nth: int, moment: str) -> None:
    """Replace a function by itself and a kill, before or after its nth call."""
    module_name, _, name = step.partition(":")
    place: Any = importlib.import_module(module_name)
    *path, last = name.split(".")
    for part in path:
        place = getattr(place, part)
    real = getattr(place, last)
    calls = 0

    def deadly(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls == nth and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, last, deadly)
