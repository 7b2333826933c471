"""One selftest of one station: whose launcher, which folders, the attacks in order, and nothing left of it.

Where `pht-station serve` runs and lets the caller speak to its launcher, that launcher starts the hostile train; else one in this
process does, with the same settings, in a folder of its own. What an earlier selftest left when it was killed is removed first.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from policies.blobs import BlobFolder
from policies.errors import RefusedError, StorageError, UnavailableError, UsageError
from station.layout import StationPaths
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.launcher.service import local_launcher
from station.sandbox.spec import MIB, Launcher, LauncherSettings
from station.selftest.attacks import AREAS, ATTACKS, Attack
from station.selftest.ground import lay_out
from station.selftest.host import host_facts
from station.selftest.image import make_image
from station.selftest.report import Ceilings, HostFacts, Line, Report
from station.selftest.runner import Place, Selftest

MARKER: Final = "selftest"
PREFIX: Final = "selftest-"
FOLDER: Final = "selftest"

Whose = Literal["the running station's", "this command's own"]
Progress = Callable[[int, int, Attack, Line | None], None]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Whose launcher it is, and the folder of which it takes cohorts and images."""

    whose: Whose
    launcher: Launcher
    compute: Path
    owner: tuple[int, int] | None


def chosen_attacks(areas: tuple[str, ...]) -> list[tuple[int, Attack]]:
    """Return the attacks of some areas with their numbers; of all where none is named.

    Raises:
        UsageError: there is no such area.
    """
    unknown = sorted(set(areas) - set(AREAS))
    if unknown:
        raise UsageError(f"there is no area {unknown[0]!r}", hint=f"There are: {', '.join(AREAS)}.")
    return [(number, attack) for number, attack in enumerate(ATTACKS, 1) if not areas or attack.area in areas]


def run_selftest(
    paths: StationPaths,
    settings: LauncherSettings,
    *,
    areas: tuple[str, ...] = (),
    progress: Progress = lambda _done, _all, _attack, _line: None,
    launch: Callable[[Path, LauncherSettings], Launcher] | None = None,
) -> Report:
    """Try every escape.

    Args:
        paths: the station.
        settings: what its launcher is started with.
        areas: only attacks of these; all without.
        progress: told before and after each attack.
        launch: makes the launcher; without it the running station's is taken, else one in this process.

    Raises:
        UsageError: an area is unknown.
        StorageError: another selftest runs, or a folder cannot be made.
        UnavailableError, RefusedError: no launcher or engine answers, or the hostile train is not started.
    """
    attacks = chosen_attacks(areas)
    began = datetime.now(UTC)
    with contextlib.ExitStack() as undo:
        work = undo.enter_context(_own_folder(paths.home))
        chosen = _choose(paths, settings, work, launch)
        _remove_remains(chosen)
        undo.callback(_remove_remains, chosen)
        image = _image(undo, chosen, work)
        facts = host_facts(chosen.launcher, settings)
        ground = undo.enter_context(lay_out(chosen.compute / "cohorts"))
        place = Place(
            chosen.launcher, chosen.compute, image, MARKER, settings, chosen.owner,
            {"engine_socket": str(settings.engine_socket), "launcher_socket": str(paths.launcher_socket)},
        )  # fmt: skip
        lines = []
        selftest = undo.enter_context(Selftest(place, ground, work))
        for done, (number, attack) in enumerate(attacks):
            progress(done, len(attacks), attack, None)
            lines.append(selftest.run(number, attack))
            progress(done + 1, len(attacks), attack, lines[-1])
    return _report(settings, chosen.whose, image, facts=facts, began=began, lines=lines)


def _report(
    settings: LauncherSettings,
    whose: Whose,
    image: str,
    *,
    facts: HostFacts,
    began: datetime,
    lines: list[Line],
) -> Report:
    counts = [line.verdict for line in lines]
    return Report.model_validate(
        {
            "station": settings.station,
            "began": began.replace(microsecond=0),
            "finished": datetime.now(UTC).replace(microsecond=0),
            "launcher": whose,
            "image": image,
            "host": facts,
            "ceilings": Ceilings(
                memory_mib=settings.max_memory_bytes // MIB,
                cpus=settings.max_cpus,
                pids=settings.max_pids,
                scratch_mib=settings.max_scratch_bytes // MIB,
            ),
            "complete": len(lines) == len(ATTACKS),
            "lines": lines,
            "stopped": counts.count("stopped"),
            "not_stopped": counts.count("NOT STOPPED"),
            "not_applicable": counts.count("not applicable here"),
        }
    )


@contextlib.contextmanager
def _own_folder(home: Path) -> Iterator[Path]:
    """Yield HOME/selftest, which one selftest at a time has and which is gone afterwards."""
    folder = home / FOLDER
    try:
        folder.mkdir(mode=0o711, exist_ok=True)
        folder.chmod(0o711)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(
            f"HOME/{FOLDER} cannot be made ({error.strerror})",
            hint="Run this as the station's operator (root).",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _empty(folder)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError as error:
        raise StorageError("another selftest of this station runs", hint="Wait until it is over.") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)


def _choose(
    paths: StationPaths,
    settings: LauncherSettings,
    work: Path,
    launch: Callable[[Path, LauncherSettings], Launcher] | None,
) -> _Chosen:
    theirs = LauncherClient(paths.launcher_socket)
    if launch is None:
        with contextlib.suppress(UnavailableError):
            theirs.engine_info()
            status = paths.compute.stat()
            owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
            return _Chosen("the running station's", theirs, paths.compute, owner)
    for name in ("cohorts", "control", "layers"):
        (work / "compute" / name).mkdir(parents=True)
    own = (launch or local_launcher)(work, settings)
    return _Chosen("this command's own", own, work / "compute", None)


def _remove_remains(chosen: _Chosen) -> None:
    """Remove containers and folders of a selftest that is over or was killed."""
    with contextlib.suppress(UnavailableError, RefusedError):
        for run in chosen.launcher.list_runs():
            if run.run_id.startswith(PREFIX):
                chosen.launcher.stop(run.run_id)
    for folder in ("cohorts", "control"):
        for each in (chosen.compute / folder).glob(PREFIX + "*"):
            shutil.rmtree(each, ignore_errors=True)


def _image(undo: contextlib.ExitStack, chosen: _Chosen, work: Path) -> str:
    """Make the image and put it where the launcher looks; it is taken away again, also out of the engine."""
    store, aside = BlobFolder(chosen.compute / "layers"), BlobFolder(work / "made")
    image = make_image(aside)
    for digest in image.blobs:
        if store.has(digest):
            continue
        with aside.open(digest) as blob:
            store.put(iter(lambda: blob.read(MIB), b""), expect=digest)
        undo.callback(store.remove, digest)
        if chosen.owner is not None:
            # The folder too: where it is the store's first image, we have just made it.
            for each in (store.path(digest).parent, store.path(digest)):
                os.chown(each, *chosen.owner)
    undo.callback(_forget, chosen.launcher, image.config_digest)
    return image.config_digest


def _forget(launcher: Launcher, digest: str) -> None:
    with contextlib.suppress(UnavailableError, RefusedError):
        launcher.remove_image(digest)
