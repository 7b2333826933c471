"""Making base images: what is trimmed, what is pinned, and what is said where it cannot be done."""

import re
from pathlib import Path

import pytest

from policies.errors import UnavailableError
from train_images.base import trim
from train_images.base.build import HERE, build_base_images, download_wheels
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


def test_a_wheel_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\npht-no-such-project==1.0\n")
    with pytest.raises(UnavailableError) as caught:
        download_wheels(requirements, tmp_path / "wheels")
    assert "pip download" in caught.value.hint


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-torch.txt"])
def test_every_requirement_is_pinned_and_none_is_of_cuda(name: str) -> None:
    lines = [line for line in (HERE / name).read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)
        assert not re.match(r"nvidia|cuda|triton", line, re.IGNORECASE)


def test_images_install_from_their_own_wheels_without_resolving() -> None:
    for name in ("Dockerfile", "Dockerfile.torch"):
        text = (HERE / name).read_text()
        (install,) = re.findall(r"pip install[^&]*", text)
        assert "--no-index" in install
        assert "--no-deps" in install


def test_trimming_removes_tests_headers_and_libraries_and_keeps_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ["torch/test/a", "torch/include/ATen.h", "torch/lib/x.a", "torch/bin/test_api", "numpy/_core/tests/t.py",
            "sympy/core/tests/t.py", "torch/version.pyi", "torch/bin/models/m"]  # fmt: skip
    kept = [
        "torch/testing/_internal/common.py",
        "torch/lib/libtorch.so",
        "torch/bin/torch_shm_manager",
        "monai/tests.py",
    ]
    for name in (*gone, *kept):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    trim.main(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert capsys.readouterr().out.startswith("trimmed 0 of 0 MB")
