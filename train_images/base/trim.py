"""Removes from a site-packages folder what a train never runs: tests, headers, static libraries, test programs.

Whole files go; what stays has the bytes of its wheel, to which the board's review holds it. Runs inside the image's build. Every station keeps a copy of these layers, so their size is paid at every hospital.
"""

import shutil
import sys
from pathlib import Path

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
    sys.stdout.write(f"trimmed {(before - _size(root)) / 1e6:.0f} of {before / 1e6:.0f} MB\n")


def _size(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if not path.is_symlink() and path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
