"""What is tried on a real GPU is collected only where NVML finds one; elsewhere there is nothing here to skip."""

import shutil

from station.sandbox.gpu.nvml import discover

collect_ignore = []
if not discover().devices:
    collect_ignore.append("test_gpu_real.py")
if collect_ignore or shutil.which("nvidia-container-runtime-hook") is None:
    # Also where there is a GPU and an engine that can hand out none.
    collect_ignore.append("test_gpu_container.py")
