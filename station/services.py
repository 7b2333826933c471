"""One service of the station as a process: `python -m station.services {intake,compute,launcher} HOME`.

Started by the supervisor and by nothing else. Asks the kernel for a signal when its parent dies, and ends itself where that
signal does not end it in time, so that no service outlives a supervisor that was killed.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from policies.console import show_error
from policies.errors import ExitCode, PhtError
from station.logs import log_as_json_lines

_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0
_GRACE_S = 20.0


def main() -> int:
    """Run the named service until SIGTERM."""
    name, home = sys.argv[1], Path(sys.argv[2])
    log_as_json_lines()
    if not _die_with_parent():
        return ExitCode.OK
    try:
        _run(name, home)
    except PhtError as error:
        show_error(error, as_json=True)
        return error.exit_code
    return ExitCode.OK


def _die_with_parent() -> bool:
    parent = os.environ.get("PHT_SUPERVISOR")
    if parent is None:
        return True
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    threading.Thread(target=_outlive_nobody, args=(int(parent),), name="parent", daemon=True).start()
    # It may have died before the kernel was asked.
    return os.getppid() == int(parent)


def _outlive_nobody(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(name: str, home: Path) -> None:
    # Each service imports its own code only: intake never loads the launcher's, nor compute the pseudonymiser's.
    match name:
        case "intake":
            from station.intake.service import serve  # noqa: PLC0415

            serve(home)
        case "compute":
            from station.compute import serve as serve_compute  # noqa: PLC0415

            serve_compute(home)
        case "launcher":
            from station.sandbox.launcher.service import serve as serve_launcher  # noqa: PLC0415
            from station.sandbox_settings import launcher_settings  # noqa: PLC0415

            serve_launcher(home, launcher_settings(home))
        case _:
            raise PhtError(f"there is no service {name}")


if __name__ == "__main__":
    sys.exit(main())
