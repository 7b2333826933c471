"""Making base images: what is trimmed, what is pinned, and what is said where it cannot be done."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from policies.errors import UnavailableError, UsageError
from train_images.base import trim
from train_images.base.build import build_base_images
from train_images.base.debian import make_base_image
from train_images.base.engine import inspect_image, run_or_explain


def test_no_engine_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    for attempt in (lambda: inspect_image("x:1"), lambda: build_base_images(print)):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert "apt-get install docker.io" in caught.value.hint


def test_no_docker_command_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError) as caught:
        inspect_image("x:1")
    assert caught.value.hint


def test_a_command_that_fails_is_explained_by_its_last_lines() -> None:
    with pytest.raises(UnavailableError, match="cannot be done: the reason"):
        run_or_explain(["sh", "-c", "echo the reason >&2; exit 3"], "it cannot be done", timeout_s=10)


@pytest.mark.parametrize(
    "name",
    [
        "python:3.11-slim-bookworm",
        "python@sha256:abc",
        "--all@sha256:" + "a" * 64,
        "python@sha256:" + "A" * 64,
    ],
)
def test_an_operating_system_is_pinned_by_a_digest_and_by_nothing_less(name: str) -> None:
    with pytest.raises(UsageError, match="not pinned by a digest"):
        make_base_image("pht-test-system:1", print, pinned=name)


def test_trimming_removes_tests_headers_and_libraries_and_keeps_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ["torch/test/a", "torch/include/ATen.h", "torch/lib/x.a", "torch/bin/test_api", "numpy/_core/tests/t.py",
            "sympy/core/tests/t.py", "torch/version.pyi", "torch/bin/models/m", "nvidia/cu13/lib/libcusolverMg.so.12",
            "nvidia/cu13/lib/libnvrtc.alt.so.13", "nvidia/cu13/lib/libnvperf_host.so"]  # fmt: skip
    kept = [
        "torch/testing/_internal/common.py",
        "torch/lib/libtorch.so",
        "torch/bin/torch_shm_manager",
        "monai/tests.py",
        "nvidia/cu13/lib/libcusolver.so.12",
        "nvidia/cu13/lib/libnvrtc.so.13",
    ]
    for name in (*gone, *kept):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    trim.main(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert capsys.readouterr().out.startswith("trimmed 0 of 0 MB")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A real library with symbols that no loader reads, as torch's wheels have them."""
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    return Path(shutil.copy(Path(torch.origin).parent / "lib" / "libc10.so", tmp_path / "libc10.so"))


def test_a_librarys_symbols_for_debuggers_go_and_what_the_loader_reads_stays(library: Path) -> None:
    before = library.read_bytes()
    names_at = before.rindex(b"\0.symtab\0")
    with library.open("r+b") as file:
        saved = trim.drop_symbols(file)
    after = library.read_bytes()
    assert len(before) - len(after) == saved > 0.1 * len(before)
    same = next(at for at in range(64, len(after)) if before[at] != after[at])
    assert before[64:same] == after[64:same]
    assert same > 0.5 * len(after)
    assert before[names_at : names_at + 9] in after
    # c10::GetCPUAllocator(), loaded and found in a process in which no other libc10 is.
    find = f"import ctypes; print(bool(ctypes.CDLL({str(library)!r})._ZN3c1015GetCPUAllocatorEv))"
    found = subprocess.run([sys.executable, "-c", find], check=True, capture_output=True, text=True)
    assert found.stdout == "True\n"
    with library.open("r+b") as file:
        assert trim.drop_symbols(file) == 0
    assert library.read_bytes() == after


def test_a_file_in_which_something_loaded_lies_behind_the_symbols_is_left_alone(library: Path) -> None:
    """As tools leave it that mend a library's search path."""
    content = bytearray(library.read_bytes())
    header = trim.HEADER.unpack(content[:64])
    programs_at, programs = header[5], header[10]
    for at in range(programs_at, programs_at + programs * trim.PROGRAM.size, trim.PROGRAM.size):
        program = list(trim.PROGRAM.unpack(content[at : at + trim.PROGRAM.size]))
        if program[0] == 1:  # PT_LOAD
            last, found = at, program
    found[5] = len(content) - found[2]
    content[last : last + trim.PROGRAM.size] = trim.PROGRAM.pack(*found)
    library.write_bytes(content)
    with library.open("r+b") as file:
        assert trim.drop_symbols(file) == 0
    assert library.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!/bin/sh\n" + b"x" * 100, b"\x7fELF\x01\x01" + b"\0" * 100]
)
def test_what_is_no_library_of_this_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.so").write_bytes(content)
    with (tmp_path / "a.so").open("r+b") as file:
        assert trim.drop_symbols(file) == 0
    assert (tmp_path / "a.so").read_bytes() == content
