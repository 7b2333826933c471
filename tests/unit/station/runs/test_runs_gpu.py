"""A run and its GPU: what the launcher is asked for, when an idle train gives it back, and how it goes on."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from station_kit import IMAGE, MANIFEST, StationKit, in_the_middle, order_digest, prepare

from policies.documents import digest_of
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind, Status
from station.sandbox.gpu.model import GpuNeed, GpuReport, GpuStatus
from station.settings.gpu import GpuSection

CUDA = "sha256:" + "c" * 64
IDLE = timedelta(minutes=15)


def train(gpu: str) -> bytes:
    document = yaml.safe_load(MANIFEST)
    document["resources"] |= {"gpu": gpu, "gpu_memory_mib": 8000}
    document["images"].append({"variant": "cuda", "config_digest": CUDA})
    return yaml.safe_dump(document).encode()


def station(folder: Path, gpu: str = "required", policy: Mapping[str, object] | None = None) -> StationKit:
    """A station that leases one GPU of 24 GiB, and a train that wants one."""
    grant = {
        "manifest_digest": digest_of(train(gpu)),
        "image_config_digests": [IMAGE, CUDA],
        "resources.gpu": True,
    }
    kit = StationKit.make(folder, grant | dict(policy or {}), gpu=GpuSection(devices=("all",)))
    kit.shelf.put(train(gpu))
    kit.launcher.report = report(24_576)
    return kit


def report(*memory_mib: int) -> GpuReport:
    devices = tuple(
        GpuStatus(uuid=f"GPU-00000000-0000-0000-0000-{number:012}", name="A", memory_mib=each, state="free")
        for number, each in enumerate(memory_mib)
    )
    return GpuReport(driver="570", devices=devices)


def ready(kit: StationKit, gpu: str = "required", image: str = CUDA) -> bytes:
    return kit.ready(manifest_digest=digest_of(train(gpu)), image_config_digest=image)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = station(tmp_path)
    yield made
    made.close()


def test_a_train_that_may_do_without_and_one_built_for_the_cpu(tmp_path: Path) -> None:
    kit = station(tmp_path, "optional", {"resources.cpu_fallback": True})
    ready(kit, "optional")
    ready(kit, "optional", IMAGE)
    assert [session.spec.gpu for session in kit.sandbox.running] == [
        GpuNeed(memory_mib=8000, required=False),
        None,
    ]
    # The one without is left warm.
    kit.clock.forward(days=1)
    assert len(kit.warm.end_idle(IDLE)) == 1
    assert [session.spec.gpu for session in kit.sandbox.running] == [None]
    kit.close()


def test_a_gpu_that_is_too_small_or_a_launcher_that_is_away_refuses(kit: StationKit) -> None:
    wanted = {"manifest_digest": digest_of(train("required")), "image_config_digest": CUDA}
    kit.launcher.report = report(4096)
    assert kit.prepare(kit.order(**wanted)).code == RefusalCode.HOSPITAL_RESOURCES
    kit.clock.forward(minutes=1)
    kit.launcher.away = True
    assert kit.prepare(kit.order(**wanted)).code == RefusalCode.HOSPITAL_RESOURCES
    kit.launcher.away = False
    kit.launcher.report = report(4096, 24_576)
    assert kit.prepare(kit.order(**wanted)).status is Status.ACCEPTED


def test_an_idle_train_gives_its_gpu_back_and_goes_on_with_the_next_message(kit: StationKit) -> None:
    envelope = ready(kit)
    (session,) = kit.sandbox.running
    assert session.spec.gpu == GpuNeed(memory_mib=8000, required=True)
    assert kit.message(envelope, Kind.TRAIN)[0].status is Status.RELEASED
    kit.clock.forward(minutes=14, seconds=59)
    assert kit.warm.end_idle(IDLE) == []
    kit.clock.forward(seconds=1)
    assert kit.warm.end_idle(IDLE) == [order_digest(envelope)]
    assert kit.sandbox.running == []
    assert kit.warm.end_idle(IDLE) == []
    events = kit.events()
    assert events.index("gpu-given-back") < events.index("container-ended")
    assert kit.state(envelope) == "ready"
    assert kit.service.handle(prepare(envelope), None)[0].status is Status.ACCEPTED
    kit.policy_is_fresh()
    assert kit.message(envelope, Kind.EVALUATE)[0].status is Status.RELEASED
    assert len(kit.sandbox.running) == 1
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.failures == 0


def test_a_message_under_way_is_not_idle(kit: StationKit) -> None:
    envelope = ready(kit)
    with in_the_middle(kit, envelope) as (busy, replies):
        kit.clock.forward(hours=1)
        assert kit.warm.end_idle(IDLE) == []
        busy.go_on.set()
    # However long it took, the time counts from its answer.
    assert kit.warm.end_idle(IDLE) == []
    assert len(kit.sandbox.running) == 1
    assert replies
