"""What the launcher is started with, from the hospital's settings; nothing that arrives on its socket can widen it."""

import grp
import os
import pwd
from pathlib import Path

from station.layout import GROUP
from station.sandbox.gpu.model import GpuTerms
from station.sandbox.spec import MIB, LauncherSettings, SelinuxLabel
from station.settings import load_settings

_LONGEST_RUN_S = 7 * 24 * 3600


def launcher_settings(home: Path) -> LauncherSettings:
    """Return the launcher's ceilings and who may speak to it.

    Raises:
        SettingsError, NotFoundError: station.toml cannot be used.
    """
    settings = load_settings(home)
    separated = settings.services.separation == "users"
    ceilings = settings.ceilings
    return LauncherSettings(
        station=settings.name,
        engine_socket=Path(settings.engine.socket),
        runtime=settings.engine.runtime,
        selinux=SelinuxLabel(type=settings.engine.selinux_type, level=settings.engine.selinux_level),
        compute_uid=pwd.getpwnam(settings.services.compute_user).pw_uid if separated else os.getuid(),
        socket_gid=grp.getgrnam(GROUP).gr_gid if separated else None,
        max_memory_bytes=ceilings.memory_mib * MIB,
        max_cpus=ceilings.cpus,
        max_pids=ceilings.pids,
        max_scratch_bytes=ceilings.scratch_mib * MIB,
        max_wall_clock_s=_LONGEST_RUN_S,
        max_containers=ceilings.runs_at_once,
        gpu=GpuTerms(devices=settings.gpu.devices, scrub=settings.gpu.scrub),
    )
