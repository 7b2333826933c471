"""This host's own Python as files of an image: the interpreter, what it imports, and the libraries it loads. Nothing is fetched.

What is needed is asked of the interpreter itself: a fresh one imports what the hostile train imports, then says which modules
it read and which files the kernel mapped into it.
"""

import base64
import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from policies.errors import UnavailableError

ROOT: Final = PurePosixPath("/opt/train")
INTERPRETER: Final = ROOT / "bin" / "python"
STDLIB: Final = ROOT / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
MODULES: Final = (
    "array", "ctypes", "errno", "gzip", "json", "mmap", "os", "resource", "select", "signal", "socket", "stat",
    "struct", "subprocess", "sys", "time", "encodings.ascii", "encodings.idna", "encodings.latin_1",
)  # fmt: skip
"""What the hostile train imports, directly or while it runs."""

_ASK: Final = """
import base64, importlib, importlib._bootstrap_external as external, importlib.util, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
made = {}
for name, module in sorted(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    if spec is None or not spec.has_location or name == "__main__":
        continue
    code = ""
    if spec.origin.endswith(".py"):
        data = open(spec.origin, "rb").read()
        compiled = compile(data, name, "exec", dont_inherit=True, optimize=0)
        packed = external._code_to_hash_pyc(compiled, importlib.util.source_hash(data), False)
        code = base64.b64encode(packed).decode()
    made[name] = [spec.origin, code]
print(json.dumps({"modules": made, "mapped": sorted(mapped), "program": os.readlink("/proc/self/exe")}))
"""
_ELF_INTERPRETER: Final = 3
_USR_MERGED: Final = ("bin", "lib", "lib64", "sbin")


def files_of_the_interpreter() -> dict[str, bytes | str]:
    """Return an image's files by absolute path: bytes, or a link's target as text.

    Raises:
        UnavailableError: this host's Python cannot be laid out; the text says why.
    """
    told = _ask()
    made: dict[str, bytes | str] = dict(_merged_folders())
    made[str(INTERPRETER)] = told.program.read_bytes()
    for name, (path, code) in told.modules.items():
        made.update(_module(name, path, code))
    extensions = {path.resolve() for path, _ in told.modules.values() if path.suffix == ".so"}
    for library in told.mapped:
        if ".so" in library.name and library.resolve() not in extensions:
            made.update(_library(library, Path(sys.base_prefix)))
    loader = _loader(told.program)
    if loader is not None:
        made[_canonical(loader)] = Path(loader).read_bytes()
    # By these two an interpreter knows its own folder; `os` itself is frozen into it.
    made[str(STDLIB / "os.py")] = Path(os.__file__).read_bytes()
    made[str(STDLIB / "lib-dynload" / ".here")] = b""
    return made


@dataclass(frozen=True, slots=True)
class _Told:
    """What a fresh interpreter said of itself.

    Attributes:
        program: its file.
        mapped: the files that the kernel mapped into it.
        modules: where each module lies, and its compiled code.
    """

    program: Path
    mapped: tuple[Path, ...]
    modules: dict[str, tuple[Path, bytes]]


def _ask() -> _Told:
    # Without the user's and the site's own modules; a fixed seed, so that the compiled code is the same on every run.
    command = [_base_interpreter(), "-s", "-S", "-P", "-B", "-c", _ASK, *MODULES]
    try:
        said = subprocess.run(
            command, capture_output=True, check=True, timeout=120, env={"PYTHONHASHSEED": "0"}, cwd="/"
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(
            "this host's Python cannot be laid out as an image",
            hint="Does `python3 -S -c 'import ctypes'` work here?",
        ) from error
    told = json.loads(said.stdout)
    modules = {name: (Path(path), base64.b64decode(code)) for name, (path, code) in told["modules"].items()}
    return _Told(Path(told["program"]), tuple(Path(each) for each in told["mapped"]), modules)


def _base_interpreter() -> str:
    # In a virtual environment sys.executable is a link that finds its home by a file beside it.
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _module(name: str, path: Path, code: bytes) -> Iterator[tuple[str, bytes]]:
    data = path.read_bytes()
    if path.suffix == ".so":
        yield str(STDLIB / "lib-dynload" / path.name), data
        return
    parts = name.split(".")
    relative = Path(*parts, "__init__.py") if path.name == "__init__.py" else Path(*parts).with_suffix(".py")
    yield str(STDLIB / relative), data
    # Compiled here and never checked there: the root is read-only.
    yield importlib.util.cache_from_source(str(STDLIB / relative)), code


def _library(path: Path, prefix: Path) -> Iterator[tuple[str, bytes | str]]:
    """Yield a library and the names under which it is asked for, where the loader looks for them."""
    inside = path.is_relative_to(prefix) and prefix != Path("/usr")
    where = str(ROOT / path.relative_to(prefix)) if inside else _canonical(str(path))
    yield where, path.read_bytes()
    for other in path.parent.iterdir():
        if other.is_symlink() and other.name != path.name and other.resolve() == path.resolve():
            yield str(PurePosixPath(where).parent / other.name), path.name


def _loader(program: Path) -> str | None:
    """Return the dynamic loader that an ELF program names (PT_INTERP); ``None`` for a static one."""
    data = program.read_bytes()
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    if data[:4] != b"\x7fELF" or not wide:
        raise UnavailableError("this host's Python is no 64-bit ELF program")
    (offset,) = struct.unpack_from(order + "Q", data, 32)
    size, count = struct.unpack_from(order + "HH", data, 54)
    for number in range(count):
        kind, _flags, start, _va, _pa, length = struct.unpack_from(
            order + "IIQQQQ", data, offset + number * size
        )
        if kind == _ELF_INTERPRETER:
            return data[start : start + length].rstrip(b"\0").decode()
    return None


def _merged_folders() -> Iterator[tuple[str, str]]:
    """Yield the links /lib -> usr/lib and the like, as this host has them."""
    for name in _USR_MERGED:
        if Path("/", name).is_symlink():
            yield f"/{name}", str(Path("/", name).readlink()).lstrip("/")


def _canonical(path: str) -> str:
    """Return a path by way of no linked top folder: /lib64/ld.so lies at /usr/lib64/ld.so where /lib64 is a link."""
    top = path.split("/")[1]
    link = Path("/", top)
    if link.is_symlink():
        return "/" + str(link.readlink()).lstrip("/") + path[len(top) + 1 :]
    return path
