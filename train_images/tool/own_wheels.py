"""The Python packages that a train brings along: wheels fetched beside its Dockerfile, exactly those that its author wrote down.

A train's folder with a ``requirements.txt`` has them in the build context as ``wheels/``, and its Dockerfile installs them
without a network (``pip install --no-index --no-deps --require-hashes``). The list is closed: every line names one version and
the SHA-256 of each file that may be taken for it, and nothing is resolved. So what a board has read in a train's folder is what
is in the image, and a wheel that was changed at its index since does not get in.

Fetched as pip is configured here (index, proxy, certificate), and for the base images' Python, whatever Python runs this.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from policies.errors import DocumentError
from train_images.base.engine import run_or_explain

REQUIREMENTS: Final = "requirements.txt"
WHEELS: Final = "wheels"

_PINNED: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*(\s+--hash=sha256:[0-9a-f]{64})+"
)
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_PYTHON: Final = "3.11"
_MANYLINUX: Final = (*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)), "linux_x86_64")
"""Of the base images: Debian 12, whose C library is 2.36. pip takes what is named and no older ones by itself."""

_TIMEOUT_S: Final = 1800
_HOW: Final = (
    "Write each package, and each that those need and the base image lacks, as NAME==VERSION --hash=sha256:...; "
    "`pip hash FILE.whl` says what a file's is."
)


def fetch_own_wheels(folder: Path, context: Path) -> tuple[str, ...]:
    """Fetch what a train's ``requirements.txt`` lists into the build context's ``wheels/``.

    Args:
        folder: the train's.
        context: of the build; it holds a copy of the folder already.

    Returns:
        The wheels' file names, sorted; none where the train brings no packages.

    Raises:
        DocumentError: the list is not closed: a line without one version and a hash.
        UnavailableError: a wheel cannot be had, or is not one of those whose hash is written down.
    """
    requirements = folder / REQUIREMENTS
    if not requirements.is_file():
        return ()
    lines = closed_list(requirements)
    if not lines:
        return ()
    into = context / WHEELS
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={_PYTHON}",
    ]
    command += [f"--platform={name}" for name in _MANYLINUX]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as read:
        # What was read here and nothing else: pip's own reading of the file might find an option in it.
        read.write("\n".join(lines) + "\n")
        read.flush()
        run_or_explain(
            [*command, "--dest", str(into), "--requirement", read.name],
            f"the packages of {folder.name}/{REQUIREMENTS} cannot be fetched",
            hint="A file whose hash is not in the list is refused: find out why it changed before writing down another. "
            "Else check that `pip download` works here (index, proxy, certificate).",
            timeout_s=_TIMEOUT_S,
        )
    return tuple(sorted(path.name for path in into.glob("*.whl")))


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
