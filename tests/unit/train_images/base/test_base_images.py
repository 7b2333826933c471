"""Making base images: what is trimmed, what is pinned, and what is said where it cannot be done."""

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
