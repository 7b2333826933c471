"""Attack: an image's own config asks for root, another program, volumes, a health check and a library to preload."""

import pytest
from sandbox_kit import DOCKERFILE, Station, build_image, remove_image, store_image

from policies.errors import RefusedError
from policies.refusals import RefusalCode

pytestmark = pytest.mark.docker

GREEDY = (
    DOCKERFILE
    + """
USER 0:0
ENTRYPOINT ["/bin/sh", "-c", "touch /tmp/owned; sleep 1000"]
VOLUME ["/var/lib/stolen"]
EXPOSE 8080
HEALTHCHECK --interval=1s CMD touch /tmp/checked
STOPSIGNAL SIGTERM
LABEL nl.pht.station="another"
ENV PYTHONPATH=/opt/more SECRET=hello TZ=Europe/Amsterdam FLWR_TELEMETRY_ENABLED=1 HOME=/root
WORKDIR /root
"""
)

CODE = """
import os
found = {
    "uid_is_root": os.getuid() == 0,
    "argv": open("/proc/1/cmdline").read().split("\\0")[:-1][-3:],
    "volume": os.path.ismount("/var/lib/stolen"),
    "left": os.listdir("/tmp"),
    "environment": {name: os.environ.get(name) for name in ("PYTHONPATH", "SECRET", "TZ", "FLWR_TELEMETRY_ENABLED", "HOME")},
    "folder": os.getcwd(),
}
"""


def test_only_the_station_chooses_how_a_container_runs(station: Station) -> None:
    tag = "pht-test-greedy:1"
    build_image(tag, GREEDY)
    digest = store_image(tag, station.store)
    with station.session(image_config_digest=digest) as session:
        found = station.find(session, CODE)
        shown = station.launcher.list_runs()
    remove_image(tag)
    assert found == {
        "uid_is_root": False,
        "argv": ["/opt/train/bin/python", "-m", "pht_runtime"],
        "volume": False,
        "left": [],
        "environment": {
            "PYTHONPATH": "/opt/more",
            "SECRET": None,
            "TZ": "Europe/Amsterdam",
            "FLWR_TELEMETRY_ENABLED": "0",
            "HOME": "/tmp",
        },
        "folder": "/train/scratch",
    }
    assert session.run_id in {each.run_id for each in shown}


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
def test_a_variable_that_is_refused_refuses_the_image(station: Station, variable: str) -> None:
    tag = f"pht-test-{variable.lower().replace('_', '-')}:1"
    # ENV comes last, so that building does not run under it.
    build_image(tag, f"{DOCKERFILE}\nENV {variable}=all\n")
    digest = store_image(tag, station.store)
    remove_image(tag)
    with pytest.raises(RefusedError, match=variable) as caught:
        station.launcher.load_image(digest)
    assert caught.value.code == RefusalCode.IMAGE_CONFIG
