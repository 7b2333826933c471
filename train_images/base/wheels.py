"""Closed lists of wheels: reading one, and fetching exactly the files that it names.

A list is a requirements file as pip reads it, of which every line names one version and the SHA-256 of each file that may be
taken for it. Nothing is resolved, no option in it is obeyed, and a file with other bytes is not taken: whoever holds the list
knows what is installed, whatever the index says that day. Fetched as pip is configured here (index, proxy, certificate), and for
the images' Python, whatever Python runs this.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from policies.errors import DocumentError, TrustError, UnavailableError

PYTHON: Final = "3.11"
PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
"""Of the base images: Debian 12, whose C library is 2.36. pip takes what is named and no older ones by itself."""

IMAGE_OPTIONS: Final = (
    "--only-binary=:all:",
    "--implementation=cp",
    f"--python-version={PYTHON}",
    *(f"--platform={name}" for name in PLATFORMS),
)
"""What makes pip choose the wheels of the images and not this machine's."""

_TORCH_CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
_TIMEOUT_S: Final = 1800
_PINNED: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*={2,3}[A-Za-z0-9][A-Za-z0-9.!+_-]*(\s+--hash=sha256:[0-9a-f]{64})+"
)
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
# What pip says of each file whose bytes are not those of the list.
_CHANGED: Final = re.compile(
    r"^\s+(\S.*?) from (\S+).*?:\n\s+Expected sha256 (\w+)(?:.|\n)*?\s+Got\s+(\w+)", re.MULTILINE
)
_CHANGED_SIGN: Final = "DO NOT MATCH THE HASHES"
_HOW: Final = (
    "Write each package, and each that those need and the base image lacks, as NAME==VERSION --hash=sha256:...; "
    "`pip hash FILE.whl` says what a file's is."
)


def closed_list(requirements: Path) -> tuple[str, ...]:
    """Return a list's packages, each as one line with its version and hashes.

    Raises:
        DocumentError: a line is something else; so none can bring an index, a path or an option either.
    """
    try:
        text = requirements.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{requirements}: cannot be read as text", hint=_HOW) from error
    found: list[str] = []
    held = ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        held += _COMMENT.sub("", line)
        if held.endswith("\\"):
            held = held[:-1]
            continue
        package, held = " ".join(held.split()), ""
        if package and _PINNED.fullmatch(package) is None:
            raise DocumentError(
                f"{requirements}: what ends in line {number} does not name one version and its hashes",
                hint=_HOW,
            )
        if package:
            found.append(package)
    return tuple(found)


def fetch_wheels(requirements: Path, into: Path, failure: str) -> tuple[str, ...]:
    """Fetch the wheels that a closed list names.

    Args:
        requirements: the list.
        into: folder for the wheels, made where it is missing.
        failure: what cannot be done without them, for the error's text.

    Returns:
        The wheels' file names, sorted.

    Raises:
        DocumentError: the list is not closed.
        TrustError: a file has other bytes than the list says.
        UnavailableError: one of them cannot be had.
    """
    lines = closed_list(requirements)
    # A CPU build of torch is in PyTorch's own index alone. The hash says which file it is, wherever it comes from.
    of_pytorch = [line for line in lines if "+cpu " in line]
    _download([line for line in lines if line not in of_pytorch], into, failure)
    try:
        _download(of_pytorch, into, failure)
    except UnavailableError:
        _download(of_pytorch, into, failure, "--index-url", _TORCH_CPU_INDEX)
    return tuple(sorted(path.name for path in into.glob("*.whl")))


def _download(lines: Sequence[str], into: Path, failure: str, *options: str) -> None:
    if not lines:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as read:
        # What was read here and nothing else: pip's own reading of the file might find an option in it.
        read.write("\n".join(lines) + "\n")
        read.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", *IMAGE_OPTIONS, *options]
        command += ["--dest", str(into), "--requirement", read.name]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{failure}: pip did not finish", hint=_fetch_hint()) from error
    if done.returncode == 0:
        return
    if _CHANGED_SIGN in done.stderr:
        raise TrustError(
            f"{failure}: {_changed(done.stderr)}",
            hint="Find out why the file changed (index, mirror, proxy) before another hash is written down.",
        )
    last = " / ".join(line.strip() for line in done.stderr.strip().splitlines()[-2:])
    raise UnavailableError(f"{failure}: {last}", hint=_fetch_hint())


def _changed(said: str) -> str:
    """Say of each file what was expected and what came."""
    found = [
        f"{name} has other bytes than were written down: sha256 {got[:16]}..., not {expected[:16]}..."
        for name, _, expected, got in _CHANGED.findall(said)
    ]
    return "; ".join(found) or "a file has other bytes than were written down"


def _fetch_hint() -> str:
    return "Check that `pip download` works here (index, proxy, certificate)."
