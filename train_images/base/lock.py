"""``python -m train_images.base.lock``: writes the closed lists of the base images' wheels again, with versions and hashes.

A person keeps ``requirements*.in``: what an image is for, at exact versions, and what of their dependencies a train never runs
(``without NAME``). pip resolves that for the images' Python without installing anything and says which file it would take; what
is reached from the first without passing by the second goes to ``requirements*.txt`` with its SHA-256. Versions that a list
already names are kept while they fit (``--upgrade`` forgets them). The lists on torch stand on the base's: they keep its versions
and don't name its packages again.

pip judges markers such as ``python_version < "3.12"`` by the Python that runs it, so only that of the images may write a list.
"""

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from policies.console import exit_code_of, say
from policies.errors import DocumentError, UnavailableError, UsageError
from train_images.base.wheels import IMAGE_OPTIONS, PYTHON, closed_list

HERE: Final = Path(__file__).parent
BASE_LIST: Final = "requirements.txt"
TORCH_LISTS: Final = ("requirements-torch-cpu.txt", "requirements-torch-cuda.txt")

_RESOLVE_TIMEOUT_S: Final = 900
_INPUTS: Final = re.compile(r"^# inputs sha256:([0-9a-f]{64})$", re.MULTILINE)
_FIELDS: Final = re.compile(r"([^\s=]+)={2,3}(\S+) --hash")
_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
# A name begins and ends with a letter or a digit (PEP 508): pip takes what begins with a hyphen for an option of its own.
_WANTED: Final = re.compile(rf"{_NAME}={{2,3}}[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_WITHOUT: Final = re.compile(rf"without ({_NAME})")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a person wrote down.

    Attributes:
        wanted: requirements with exact versions, as pip takes them.
        without: canonical names of packages that are left out, with all that is there for them alone.
    """

    wanted: tuple[str, ...]
    without: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file that pip would take.

    Attributes:
        name: of the package, as it calls itself.
        version: of the package.
        file: its file name.
        sha256: of its bytes, in hex.
        requires: its dependencies, as its metadata has them.
    """

    name: str
    version: str
    file: str
    sha256: str
    requires: tuple[str, ...]


class _Metadata(TypedDict, total=False):
    name: str
    version: str
    requires_dist: list[str]


class _Archive(TypedDict, total=False):
    hashes: dict[str, str]


class _Download(TypedDict):
    url: str
    archive_info: _Archive


class _Item(TypedDict, total=False):
    metadata: _Metadata
    download_info: _Download


class Report(TypedDict):
    """pip's installation report, as far as it is read here (pip, "Installation Report", version 1)."""

    install: list[_Item]


def read_inputs(path: Path) -> Inputs:
    """Read a list that a person keeps.

    Raises:
        DocumentError: it is no text, a line is neither ``NAME==VERSION`` nor ``without NAME``, or none names a package.
    """
    hint = "Name exact versions of what the image is for; what they need is found by itself."
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read as text", hint=hint) from error
    wanted: list[str] = []
    without: set[str] = set()
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if match := _WITHOUT.fullmatch(text):
            without.add(canonicalize_name(match[1]))
        elif _WANTED.fullmatch(text):
            wanted.append(text)
        elif text:
            raise DocumentError(
                f"{path}: line {number} is neither NAME==VERSION nor `without NAME`", hint=hint
            )
    if not wanted:
        raise DocumentError(f"{path}: names no package", hint=hint)
    return Inputs(tuple(wanted), frozenset(without))


def read_report(report: Report) -> dict[str, Wheel]:
    """Read what pip would install, by canonical name."""
    found: dict[str, Wheel] = {}
    for item in report["install"]:
        metadata, download = item["metadata"], item["download_info"]
        address = urlsplit(download["url"])
        # Of a file in a folder pip need not tell the hash.
        sha256 = download["archive_info"].get("hashes", {}).get("sha256") or _hash_of_file(download["url"])
        found[canonicalize_name(metadata["name"])] = Wheel(
            metadata["name"],
            metadata["version"],
            unquote(address.path.rpartition("/")[2]),
            sha256,
            tuple(metadata.get("requires_dist", ())),
        )
    return found


def _hash_of_file(url: str) -> str:
    address = urlsplit(url)
    if address.scheme != "file":
        raise UnavailableError(f"pip does not tell the hash of {url}", hint="Use pip 23.0 or newer.")
    with Path(url2pathname(address.path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose(inputs: Inputs, wheels: Mapping[str, Wheel], there: Iterable[str]) -> list[Wheel]:
    """Return what the wanted packages reach without passing by what is left out or is there already.

    Args:
        inputs: of the list.
        wheels: what pip would install, by canonical name.
        there: canonical names of what the image below has.

    Raises:
        DocumentError: what is left out is wanted, or nothing needs it.
    """
    closed = {*inputs.without, *there}
    if unneeded := inputs.without - wheels.keys():
        raise DocumentError(
            f"left out, but nothing needs it: {', '.join(sorted(unneeded))}",
            hint="Remove the line `without NAME`.",
        )
    ahead = [Requirement(text) for text in inputs.wanted]
    if contradicting := closed & {canonicalize_name(each.name) for each in ahead}:
        raise DocumentError(f"both wanted and left out or there already: {', '.join(sorted(contradicting))}")
    reached: dict[str, set[str]] = {}
    while ahead:
        needed = ahead.pop()
        name = canonicalize_name(needed.name)
        extras = {"", *needed.extras}
        if name in closed or extras <= reached.get(name, set()):
            continue
        reached.setdefault(name, set()).update(extras)
        ahead += _needs(wheels[name], reached[name])
    return [wheels[name] for name in sorted(reached)]


def _needs(wheel: Wheel, extras: Iterable[str]) -> list[Requirement]:
    return [
        needed
        for needed in map(Requirement, wheel.requires)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def list_text(head: str, inputs: str, wheels: Sequence[Wheel], exact: Iterable[str] = ()) -> str:
    """Return a closed list's text.

    Args:
        head: its first line.
        inputs: hash of what the list follows from.
        wheels: to be named.
        exact: canonical names of packages of which another build of the version (1.0+cpu for 1.0) is none.
    """
    signs = dict.fromkeys(exact, "===")
    lines = [
        head,
        f"# Wheels for CPython {PYTHON} on linux x86_64 with glibc 2.36 or older; one line is one file.",
        f"# inputs sha256:{inputs}",
    ]
    for each in wheels:
        sign = signs.get(canonicalize_name(each.name), "==")
        lines.append(f"{each.name}{sign}{each.version} --hash=sha256:{each.sha256}  # {each.file}")
    return "\n".join(lines) + "\n"


def inputs_hash(source: Path, below: Iterable[Path]) -> str:
    """Hash what a list follows from: its inputs, and the lists of the image that it is added to."""
    digest = hashlib.sha256(source.read_bytes())
    for path in below:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(target: Path, below: Iterable[Path]) -> bool:
    """Tell whether a list was made from the inputs that lie beside it, and for the image as it is."""
    found = _INPUTS.search(target.read_text(encoding="utf-8", errors="replace"))
    return found is not None and found[1] == inputs_hash(target.with_suffix(".in"), below)


def lists_below(name: str, folder: Path = HERE) -> tuple[Path, ...]:
    """Return the lists that one of the base images' lists stands on."""
    return () if name == BASE_LIST else (folder / BASE_LIST,)


def versions(requirements: Path) -> dict[str, str]:
    """Return the versions of a closed list by canonical name; none where there is no list."""
    if not requirements.is_file():
        return {}
    found = (_FIELDS.match(line) for line in closed_list(requirements))
    return {canonicalize_name(match[1]): match[2] for match in found if match is not None}


def resolve(wanted: Sequence[str], kept: Mapping[str, str]) -> Report:
    """Let pip say what it would install, for the images' Python.

    Args:
        wanted: requirements with exact versions.
        kept: versions by name, of whatever turns out to be needed.

    Raises:
        UnavailableError: pip finds no solution, or no index.
    """
    with tempfile.TemporaryDirectory(prefix="pht-lock-") as made:
        constraints, report = Path(made) / "kept.txt", Path(made) / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in kept.items()), "utf-8")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--disable-pip-version-check", "--target", str(Path(made) / "none"), *IMAGE_OPTIONS]
        command += ["--constraint", str(constraints), "--report", str(report), *wanted]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_RESOLVE_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError("pip did not finish resolving") from error
        if done.returncode != 0:
            last = " / ".join(done.stderr.strip().splitlines()[-3:])
            raise UnavailableError(
                f"pip finds nothing that fits: {last}",
                hint="Versions of the present list are kept, --upgrade forgets them; those of the image below are never changed.",
            )
        found: Report = json.loads(report.read_text(encoding="utf-8"))
    return found


def lock(target: Path, below: Sequence[Path], *, upgrade: bool, command: str = "make lock-base") -> int:
    """Write one list again.

    Args:
        target: the list; its inputs lie beside it and end in ``.in``.
        below: lists of the image that its wheels are added to; their versions are kept, and none of theirs is named.
        upgrade: whether to forget the versions that the list has now.
        command: what the list says it was made by.

    Returns:
        How many wheels it names.

    Raises:
        UsageError: this is not the images' Python.
        DocumentError: the inputs are not exact, or contradict themselves.
        UnavailableError: pip finds no solution, or no index.
    """
    if platform.python_version_tuple()[:2] != tuple(PYTHON.split(".")) or platform.machine() != "x86_64":
        raise UsageError(
            f"the lists are for Python {PYTHON} on x86_64, and this is another",
            hint="pip judges what is needed by the Python that runs it.",
        )
    source = target.with_suffix(".in")
    inputs = read_inputs(source)
    there = {package: version for path in below for package, version in versions(path).items()}
    kept = {} if upgrade else versions(target)
    named = {canonicalize_name(Requirement(text).name) for text in inputs.wanted}
    free = {package: version for package, version in {**kept, **there}.items() if package not in named}
    wheels = choose(inputs, read_report(resolve(inputs.wanted, free)), there)
    exact = {canonicalize_name(Requirement(text).name) for text in inputs.wanted if "===" in text}
    head = f"# Made by `{command}` from {source.name}: change that and run it again, not this."
    target.write_text(list_text(head, inputs_hash(source, below), wheels, exact), encoding="utf-8")
    return len(wheels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the lists; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train_images.base.lock", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = parser.parse_args(arguments)

    def write() -> None:
        for name in (BASE_LIST, *TORCH_LISTS):
            found = lock(HERE / name, lists_below(name), upgrade=options.upgrade)
            say(f"{name}: {found} wheels")

    return exit_code_of(write)


if __name__ == "__main__":
    sys.exit(main())
