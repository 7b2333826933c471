"""Removes from a site-packages folder what a train never runs: tests, headers, test programs, symbols for debuggers.

Runs inside the image's build. Every station keeps a copy of these layers, so their size is paid at every hospital.
"""

import shutil
import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Folders of tests by the package that has them; names such as `torch/testing` are code that torch imports.
TEST_FOLDERS = (
    "torch/test",
    "numpy/tests",
    "numpy/*/tests",
    "networkx/**/tests",
    "sympy/**/tests",
    "nibabel/**/tests",
    "mpmath/tests",
    "Crypto/SelfTest",
)
FOLDERS = ("torch/include", "torch/share", "numpy/_core/include")
FILES = (
    "**/*.a",
    "**/*.pyi",
    "**/*.h",
    "**/*.hpp",
    "**/*.cuh",
    "**/*.cmake",
    # Of NVIDIA's libraries what nothing in the image is linked with or opens: a solver over several GPUs, a second build of the
    # run-time compiler, and what profilers count with.
    "nvidia/*/lib/libcusolverMg.so*",
    "nvidia/*/lib/libnvrtc*.alt.so*",
    "nvidia/*/lib/libnvperf_*.so*",
)
# torch.multiprocessing starts this one; the rest of torch/bin are compilers and test programs.
KEPT_PROGRAM = "torch_shm_manager"

# System V ABI, gABI 4.1, "Object Files": a 64-bit header, one entry of its section table, one of its program table.
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
PROGRAM = struct.Struct("<IIQQQQQQ")
ELF_64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
SYMBOL_TABLE, WITHOUT_BYTES = 2, 8
LOADED = 2


class Section(NamedTuple):
    """One entry of the section table, with the ABI's names."""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


def main(root: Path) -> None:
    """Trim one folder and say what that saved."""
    before = _size(root)
    for pattern in (*TEST_FOLDERS, *FOLDERS):
        for folder in sorted(root.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)
    for pattern in FILES:
        for file in sorted(root.glob(pattern)):
            file.unlink()
    for program in sorted(root.glob("torch/bin/*")):
        if program.is_dir():
            shutil.rmtree(program)
        elif program.name != KEPT_PROGRAM:
            program.unlink()
    for library in sorted(root.rglob("*.so*")):
        if library.is_file() and not library.is_symlink():
            with library.open("r+b") as opened:
                drop_symbols(opened)
    sys.stdout.write(f"trimmed {(before - _size(root)) / 1e6:.0f} of {before / 1e6:.0f} MB\n")


def drop_symbols(file: BinaryIO) -> int:
    """Cut the symbol table and its names off a shared library, as `strip --strip-unneeded` does, where they are its end.

    The loader reads the dynamic symbols, which are another table and stay. A file in which anything that is loaded lies behind the
    symbols is left as it is.

    Returns:
        The bytes saved.
    """
    start = file.read(HEADER.size)
    if len(start) < HEADER.size or not start.startswith(ELF_64_LITTLE_ENDIAN):
        return 0
    (_, _, _, _, _, programs_at, sections_at, _, _, _, programs, _, count, _) = HEADER.unpack(start)
    file.seek(sections_at)
    sections = [Section(*SECTION.unpack(file.read(SECTION.size))) for _ in range(count)]
    tables = {at for at, each in enumerate(sections) if each.type == SYMBOL_TABLE}
    dropped = tables | {sections[at].link for at in tables}
    if not dropped:
        return 0
    cut = min(sections[at].offset for at in dropped)
    file.seek(programs_at)
    segments = [PROGRAM.unpack(file.read(PROGRAM.size)) for _ in range(programs)]
    behind = [
        at
        for at, each in enumerate(sections)
        if each.offset >= cut and each.type != WITHOUT_BYTES and each.size and at not in dropped
    ]
    crosses = any(
        each.offset < cut < each.offset + each.size for each in sections if each.type != WITHOUT_BYTES
    )
    loaded = any(sections[at].flags & LOADED for at in {*dropped, *behind})
    if crosses or loaded or any(offset + size > cut for _, _, offset, _, _, size, _, _ in segments):
        return 0
    before = file.seek(0, 2)
    kept: dict[int, bytes] = {}
    for at in behind:
        file.seek(sections[at].offset)
        kept[at] = file.read(sections[at].size)
    file.seek(cut)
    for at, content in kept.items():
        file.write(b"\0" * (-file.tell() % max(1, sections[at].addralign)))
        sections[at] = sections[at]._replace(offset=file.tell())
        file.write(content)
    file.write(b"\0" * (-file.tell() % 8))
    table_at = file.tell()
    for at, each in enumerate(sections):
        # An emptied place keeps the others' numbers, by which the table refers to itself.
        file.write(SECTION.pack(*(each if at not in dropped else Section(*[0] * 10))))
    after = file.tell()
    file.truncate()
    file.seek(HEADER.size - 24)
    file.write(struct.pack("<Q", table_at))
    return before - after


def _size(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if not path.is_symlink() and path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
