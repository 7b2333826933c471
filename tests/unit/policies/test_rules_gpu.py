"""Who gets a GPU, who runs without, and who is refused: train, policy, order and hospital compared."""

from dataclasses import replace
from typing import Any

import pytest
from admission_facts import HOSPITAL, facts, manifest, order, policy, policy_bytes
from station_kit import IMAGE

from policies.documents import digest_of
from policies.errors import DocumentError
from policies.refusals import Permitted, RefusalCode
from policies.rules.admission import Facts, decide, explain
from policies.rules.gpu_rules import GpuWish, gpu_wish

CUDA = "sha256:" + "c" * 64
IMAGES = [{"variant": "cpu", "config_digest": IMAGE}, {"variant": "cuda", "config_digest": CUDA}]


def asked(
    gpu: str = "required",
    *,
    floor: int = 0,
    granted: bool = True,
    fallback: bool = False,
    image: str = CUDA,
    leased: tuple[int, ...] | None = (24_576,),
) -> Facts:
    """A train with an image for each; the order names one of them."""
    changes: dict[str, Any] = {
        "image_config_digests": [IMAGE, CUDA],
        "resources.gpu": granted,
        "resources.cpu_fallback": fallback,
    }
    return facts(
        policy=policy(changes),
        policy_digest=digest_of(policy_bytes(changes)),
        order=order(digest_of(policy_bytes(changes)), image_config_digest=image),
        manifest=manifest(
            {"images": IMAGES, "resources.gpu": gpu} | ({"resources.gpu_memory_mib": floor} if floor else {})
        ),
        hospital=replace(HOSPITAL, gpu_memory_mib=leased),
    )


def wish(found: Facts) -> GpuWish | None:
    return gpu_wish(found.order, found.manifest, found.policy)


PERMITTED = [
    (asked(), GpuWish(0, required=True)),
    (asked(floor=24_576), GpuWish(24_576, required=True)),
    (asked(floor=9000, leased=(8192, 24_576)), GpuWish(9000, required=True)),
    (asked("optional"), GpuWish(0, required=True)),
    (asked("optional", fallback=True), GpuWish(0, required=False)),
    # A train that can do without, where the board says that it may.
    (asked("optional", fallback=True, leased=()), GpuWish(0, required=False)),
    (asked("optional", fallback=True, leased=None), GpuWish(0, required=False)),
    (asked("optional", fallback=True, floor=50_000), GpuWish(50_000, required=False)),
    # What was not granted, or is built for the CPU, gets none and needs none.
    (asked("optional", granted=False, leased=()), None),
    (asked("optional", image=IMAGE, leased=()), None),
    (asked("none", leased=()), None),
]
REFUSED = [
    ("hospital", "this station has none to lease", asked(leased=())),
    ("hospital", "cannot be told just now", asked(leased=None)),
    ("hospital", "with 24577 MiB; this station leases none so large", asked(floor=24_577)),
    ("hospital", "this station has none to lease", asked("optional", leased=())),
    # What the board says of the CPU does not make a train able to do without.
    ("hospital", "this station has none to lease", asked(fallback=True, leased=())),
    ("manifest", "the policy grants none", asked(granted=False)),
    ("manifest", "does not name its cuda image", asked(image=IMAGE)),
]


@pytest.mark.parametrize(("found", "leased"), PERMITTED, ids=range(len(PERMITTED)))
def test_what_is_leased_for_a_run(found: Facts, leased: GpuWish | None) -> None:
    assert isinstance(decide(found), Permitted), explain(found)
    assert wish(found) == leased


@pytest.mark.parametrize(("rule", "said", "found"), REFUSED, ids=range(len(REFUSED)))
def test_who_cannot_have_what_they_need(rule: str, said: str, found: Facts) -> None:
    verdicts = {verdict.rule: verdict.reasons for verdict in explain(found)}
    (reason,) = verdicts[rule]
    assert reason.code is RefusalCode.HOSPITAL_RESOURCES
    assert said in reason.detail
    assert not [name for name, reasons in verdicts.items() if reasons and name != rule]


def test_old_documents_say_what_they_said() -> None:
    assert policy().resources.cpu_fallback is False
    assert manifest().resources.gpu_memory_mib == 0
    assert wish(facts()) is None


def test_a_floor_without_a_gpu_is_no_manifest() -> None:
    with pytest.raises(DocumentError, match="gpu_memory_mib asks for memory of a GPU"):
        manifest({"resources.gpu_memory_mib": 8})


def test_a_policy_that_grants_no_gpu_has_nothing_to_fall_back_from() -> None:
    with pytest.raises(DocumentError, match=r"resources\.gpu grants none"):
        policy({"resources.cpu_fallback": True})
