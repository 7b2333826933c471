"""What an auditor wants to know of the host first: its kernel, its engine, and how both hold programs back."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from policies.errors import PhtError
from station.sandbox.engine.api import Engine
from station.sandbox.spec import MIB, Launcher, LauncherSettings
from station.selftest.report import HostFacts

_DISTRIBUTION: Final = "pht-radiology"
_UNKNOWN: Final = "not shown to who runs this"


def host_facts(launcher: Launcher, settings: LauncherSettings) -> HostFacts:
    """Gather the facts.

    Raises:
        UnavailableError: no engine answers.
    """
    engine, told = launcher.engine_info(), _told_by(settings)
    options = [str(each) for each in told.get("SecurityOptions") or []]
    return HostFacts(
        kernel=platform.release(),
        architecture=platform.machine(),
        system=_system(),
        engine=engine.kind,
        engine_version=engine.version,
        runtime=settings.runtime or str(told.get("DefaultRuntime") or "the engine's usual"),
        cgroup_version=engine.cgroup_version,
        seccomp=_option(options, "seccomp") if told else _UNKNOWN,
        lsm=_lsm(),
        rootless=any("rootless" in option for option in options),
        cpus=engine.cpus,
        memory_mib=engine.memory_bytes // MIB,
        gpus=len(launcher.gpus().devices),
        station_version=_version(),
        python=".".join(map(str, sys.version_info[:3])),
    )


def _told_by(settings: LauncherSettings) -> dict[str, Any]:
    try:
        return dict(Engine(settings.engine_socket).info())
    except PhtError:
        # The launcher reaches the engine; who runs this may not.
        return {}


def _option(options: list[str], name: str) -> str:
    found = [option for option in options if option.startswith(f"name={name}")]
    return found[0].removeprefix(f"name={name}").lstrip(",") or "on" if found else "off"


def _lsm() -> str:
    try:
        return Path("/sys/kernel/security/lsm").read_text("ascii").strip()
    except OSError:
        return "not shown (securityfs is not mounted)"


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return os.uname().sysname
    return release.get("PRETTY_NAME", os.uname().sysname)


def _version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"
