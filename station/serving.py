"""`pht-station serve`: which services there are, as whom they run, and what the operator is told when they do."""

import os
import sys
from pathlib import Path

from policies.console import say
from policies.errors import SettingsError
from station.layout import StationPaths
from station.logs import log_as_json_lines
from station.settings import StationSettings, load_settings
from station.supervisor import Account, ServiceSpec, Supervisor, account, require_reachable


def serve_station(home: Path) -> None:
    """Run the three services until stopped.

    Raises:
        SettingsError: the separation that the settings ask for cannot be had here.
        StateError: the station is already being served.
        UnavailableError: a service does not start.
    """
    paths = StationPaths(home)
    settings = load_settings(home)
    log_as_json_lines()
    services = _services(paths, settings)
    supervisor = Supervisor(home, services, _environment())

    def ready() -> None:
        if settings.services.separation == "none":
            say(
                "separation: none. Intake, compute and launcher run as one user: identified data and train containers"
            )
            say(
                '            are separated by process only. Start as root with separation = "users" to part them.'
            )
        say(f"station {settings.name} is ready")
        sys.stdout.flush()

    supervisor.run(ready)


def _services(paths: StationPaths, settings: StationSettings) -> tuple[ServiceSpec, ...]:
    users = _accounts(paths, settings)
    sockets = {"launcher": paths.launcher_socket, "intake": paths.intake_socket, "compute": paths.api_socket}
    # In this order: compute needs the launcher to find what an earlier life left running.
    return tuple(
        ServiceSpec(name, (name, str(paths.home)), socket, users.get(name))
        for name, socket in sockets.items()
    )


def _accounts(paths: StationPaths, settings: StationSettings) -> dict[str, Account]:
    services = settings.services
    if services.separation == "none":
        return {}
    if os.geteuid() != 0:
        raise SettingsError(
            'separation = "users" needs root to start the services',
            hint='Run as root (a systemd unit does), or set separation = "none" in station.toml.',
        )
    engine = Path(settings.engine.socket)
    engine_group = (engine.stat().st_gid,) if engine.exists() else ()
    users = {
        "intake": account(services.intake_user),
        "compute": account(services.compute_user),
        "launcher": account(services.launcher_user, engine_group),
    }
    for user in users.values():
        require_reachable(paths.home, user)
        require_reachable(Path(sys.executable).resolve().parent, user)
        require_reachable(Path(__file__).resolve().parent, user)
    return users


def _environment() -> dict[str, str]:
    """What the services start with: nothing of the operator's environment but language and our own settings."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PHT_STATION_", "LC_"))}
    return {
        **kept,
        "PATH": os.defpath,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
