"""The front as a process of its own: ``python -m orchestrator.front HOME LISTENER_FD``; started by the supervisor."""

import socket
import sys
from pathlib import Path

from orchestrator.front.server import run_front
from orchestrator.logs import start_logging
from orchestrator.services import open_services
from orchestrator.settings import Home
from policies.errors import ExitCode, PhtError

PATIENCE_S = 60.0
"""For a database that is away; then the supervisor starts this process again."""


def main() -> int:
    """Run until told to stop; the exit status is documented in the README."""
    home = Home(Path(sys.argv[1]))
    start_logging(home.logs, "front")
    try:
        services = open_services(home, patience_s=PATIENCE_S)
        try:
            with socket.socket(fileno=int(sys.argv[2])) as listener:
                run_front(services, listener)
        finally:
            services.close()
    except PhtError as error:
        sys.stderr.write(f"front: {error.message}\n")
        return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
