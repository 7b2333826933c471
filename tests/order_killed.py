"""Does one thing to an orchestrator's orders and is killed at a given call: `python tests/order_killed.py HOME ENVELOPE ACTION STEP MOMENT`."""

import sys
from pathlib import Path

from killed_at import kill_at

from orchestrator.registry.access import Principal, Role
from orchestrator.services import Services, open_services
from orchestrator.settings import Home


def accept(services: Services, envelope: bytes) -> None:
    services.orders.accept(Principal(Role.RESEARCHER, "alice"), envelope)


def put_right(services: Services, _envelope: bytes) -> None:
    services.orders.put_right()


ACTIONS = {"accept": accept, "put-right": put_right}


def main() -> None:
    home, envelope, action, step, moment = sys.argv[1:]
    services = open_services(Home(Path(home)))
    kill_at(step, 1, moment)
    ACTIONS[action](services, Path(envelope).read_bytes())


if __name__ == "__main__":
    main()
