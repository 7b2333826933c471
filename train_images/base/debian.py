"""Makes the operating system under our images where no registry can be reached.

The public image is pulled when that works, by its digest where one is given: a name in a registry may mean another image
tomorrow. Otherwise, as root on Debian or Ubuntu, debootstrap makes a minimal Debian 12 with
Python 3.11, and it is imported under the public image's name: the Dockerfiles need not know which of the two they stand on. What
Debian sends is held to its archive's signature and not to versions; `/var/lib/dpkg/status` in the image names those.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from policies.errors import UnavailableError, UsageError
from train_images.base.engine import INPUTS_LABEL, inspect_image, run_or_explain

_BY_DIGEST: Final = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*@sha256:[0-9a-f]{64}")
_PULL_TIMEOUT_S: Final = 60
_BOOTSTRAP_TIMEOUT_S: Final = 900
_PACKAGES: Final = "python3,python3-venv,ca-certificates"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR: Final = "http://deb.debian.org/debian"
_MADE: Final = "debian-2"
"""Rises when a base made here must be made anew: the first kind held device nodes, which stations refuse in an image."""
# What a container never reads, and what its engine brings itself. Copyright files stay.
_DROPPED: Final = (
    "dev",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
)


def make_base_image(
    tag: str, progress: Callable[[str], None], *, pull: bool = True, pinned: str | None = None
) -> str:
    """Make sure that the image of the operating system is there.

    Args:
        tag: its public name.
        progress: called with one line per step.
        pull: whether to ask the registry at all.
        pinned: the image and no other, as ``NAME@sha256:<hex>``.

    Returns:
        How it came: ``"present"``, ``"pinned"``, ``"pulled"`` or ``"debootstrap"``.

    Raises:
        UsageError: `pinned` has no digest.
        UnavailableError: none of the ways works here.
    """
    if pinned is not None:
        _pin(tag, pinned, progress)
        return "pinned"
    present = inspect_image(tag)
    if present is not None and (not present.imported or present.inputs == _MADE):
        return "present"
    if pull and _pull(tag, progress):
        pulled = inspect_image(tag)
        for digest in pulled.digests if pulled else ():
            progress(f"{tag}: it is {digest} (python -m train_images.base --system {digest} takes no other)")
        return "pulled"
    progress(f"{tag}: no registry answers; making a minimal Debian 12 instead (about a minute)")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pht-base-") as made:
        root = Path(made) / "rootfs"
        _bootstrap(root)
        _slim(root)
        _import(root, tag)
    progress(f"{tag}: made in {time.monotonic() - began:.0f} s")
    return "debootstrap"


def _pin(tag: str, pinned: str, progress: Callable[[str], None]) -> None:
    if _BY_DIGEST.fullmatch(pinned) is None:
        raise UsageError(f"{pinned} is not pinned by a digest", hint="Write NAME@sha256: and 64 digits.")
    if inspect_image(pinned) is None:
        progress(f"{tag}: pulling {pinned}")
        run_or_explain(
            ["docker", "pull", "--quiet", pinned],
            f"{pinned} cannot be pulled",
            timeout_s=_BOOTSTRAP_TIMEOUT_S,
            hint="Check the digest, and that this machine reaches the registry.",
        )
    run_or_explain(["docker", "tag", pinned, tag], f"{pinned} cannot be named", timeout_s=_PULL_TIMEOUT_S)


def _pull(tag: str, progress: Callable[[str], None]) -> bool:
    progress(f"{tag}: pulling")
    try:
        done = subprocess.run(
            ["docker", "pull", "--quiet", tag], check=False, capture_output=True, timeout=_PULL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _bootstrap(root: Path) -> None:
    hint = "Give this machine a registry (docker pull), or run once as root on Debian or Ubuntu."
    if os.geteuid() != 0:
        raise UnavailableError("the base image can be neither pulled nor made without root", hint=hint)
    # Without Debian's own keys it would take whatever a mirror sends.
    if shutil.which("debootstrap") is None or not _KEYRING.exists():
        if shutil.which("apt-get") is None:
            raise UnavailableError("the base image cannot be pulled and there is no debootstrap", hint=hint)
        run_or_explain(
            ["apt-get", "update"], "apt-get update failed", timeout_s=_BOOTSTRAP_TIMEOUT_S, hint=hint
        )
        run_or_explain(
            [
                "apt-get",
                "install",
                "-y",
                "--no-install-recommends",
                "debootstrap",
                "debian-archive-keyring",
            ],
            "debootstrap cannot be installed",
            timeout_s=_BOOTSTRAP_TIMEOUT_S,
            hint=hint,
        )
    run_or_explain(
        [
            "debootstrap",
            "--force-check-gpg",
            f"--keyring={_KEYRING}",
            "--variant=minbase",
            f"--include={_PACKAGES}",
            "bookworm",
            str(root),
            _MIRROR,
        ],
        "debootstrap failed",
        timeout_s=_BOOTSTRAP_TIMEOUT_S,
        hint=hint,
    )


def _slim(root: Path) -> None:
    for name in _DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in (root / "usr/share/doc").rglob("*"):
        if path.name != "copyright" and (path.is_symlink() or path.is_file()):
            path.unlink()


def _import(root: Path, tag: str) -> None:
    """Import a tree as an image, streaming it from tar."""
    hint = "Is the disk of the engine full?"
    with subprocess.Popen(
        ["tar", "--create", "--numeric-owner", "--one-file-system", "-C", str(root), "."],
        stdout=subprocess.PIPE,
    ) as tar:
        done = subprocess.run(
            [
                "docker",
                "import",
                "--change",
                'CMD ["python3"]',
                "--change",
                f"LABEL {INPUTS_LABEL}={_MADE}",
                "-",
                tag,
            ],
            stdin=tar.stdout,
            check=False,
            capture_output=True,
            text=True,
            timeout=_BOOTSTRAP_TIMEOUT_S,
        )
    if done.returncode != 0 or tar.returncode != 0:
        raise UnavailableError(f"the base image cannot be imported: {done.stderr.strip()[-300:]}", hint=hint)
