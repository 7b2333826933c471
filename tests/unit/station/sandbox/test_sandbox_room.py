"""The launcher's room: a run has one place, and the containers of one series share one train's ceilings."""

from typing import Any

import pytest

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.launcher.room import Room
from station.sandbox.spec import MIB, ContainerSpec, LauncherSettings

SETTINGS = LauncherSettings(
    station="amstel", compute_uid=0, max_containers=2, max_memory_bytes=1024 * MIB, max_cpus=2.0, max_pids=128,
    max_scratch_bytes=64 * MIB,
)  # fmt: skip


def spec(run_id: str, series: str | None = None, **changes: Any) -> ContainerSpec:
    asked = {"memory_bytes": 256 * MIB, "cpus": 0.5, "pids": 32, "scratch_bytes": 16 * MIB, **changes}
    return ContainerSpec(
        run_id=run_id, image_config_digest="sha256:" + "1" * 64, cohort_dir="/a", control_dir="/b", series=series,
        wall_clock_s=60, **asked,
    )  # fmt: skip


def enter(room: Room, asked: ContainerSpec, *running: str) -> None:
    room.enter(asked, running, running, room.inside())


def busy(room: Room, asked: ContainerSpec, *running: str) -> None:
    with pytest.raises(RefusedError) as caught:
        enter(room, asked, *running)
    assert caught.value.code == RefusalCode.RESOURCES_BUSY


def test_each_run_has_a_place_also_while_it_starts() -> None:
    room = Room(SETTINGS)
    enter(room, spec("run-a"))
    enter(room, spec("run-b"))
    busy(room, spec("run-c"))
    room.leave("run-a")
    enter(room, spec("run-c"))
    room.started("run-c")
    # What the engine has and nobody here let in takes a place too.
    busy(room, spec("run-d"), "run-c", "run-stranger")


def test_a_container_beside_a_run_shares_its_place_and_ceilings() -> None:
    room = Room(SETTINGS)
    enter(room, spec("run-a"))
    enter(room, spec("run-b"))
    enter(room, spec("run-a-score", beside="run-a"))
    busy(room, spec("run-c"))
    busy(room, spec("run-b-score", beside="run-b", memory_bytes=1000 * MIB))
    room.leave("run-a")
    # The run's own container comes back beside the one that scores, into the same place.
    enter(room, spec("run-a"))
    room.leave("run-a")
    busy(room, spec("run-a", cpus=1.6))
    # What a container of an earlier life may use is not known.
    busy(room, spec("run-d-score", beside="run-d"), "run-d")


def test_what_ended_and_was_not_removed_takes_no_place() -> None:
    room = Room(SETTINGS)
    for name in ("run-a", "run-b"):
        enter(room, spec(name))
        room.started(name)
    enter(room, spec("run-c"), "run-a")


def test_one_that_was_given_up_shares_its_place_until_it_is_gone() -> None:
    room = Room(SETTINGS)
    enter(room, spec("run-a-1", series="series-a", memory_bytes=512 * MIB))
    room.started("run-a-1")
    assert room.is_needed("run-a-1")
    room.give_up("run-a-1")
    assert not room.is_needed("run-a-1")
    # The engine is still at it: the next of its series is no other train.
    enter(room, spec("run-a-2", series="series-a", memory_bytes=512 * MIB), "run-a-1")
    enter(room, spec("run-b"), "run-a-1", "run-a-2")
    busy(room, spec("run-c"), "run-a-1", "run-a-2", "run-b")
    room.leave("run-a-1")
    assert not room.is_needed("run-a-1")


def test_a_run_has_one_container() -> None:
    room = Room(SETTINGS)
    enter(room, spec("run-a"))
    with pytest.raises(RefusedError) as caught:
        enter(room, spec("run-a"))
    assert caught.value.code == RefusalCode.SANDBOX_ARGUMENT


@pytest.mark.parametrize(
    ("ceiling", "each"),
    [
        ("memory", {"memory_bytes": 512 * MIB}),
        ("cpus", {"cpus": 1.0}),
        ("pids", {"pids": 64}),
        ("scratch", {"scratch_bytes": 32 * MIB}),
    ],
)
def test_a_series_shares_the_ceilings_of_one_train(ceiling: str, each: dict[str, Any]) -> None:
    room = Room(SETTINGS)
    asked = {"memory_bytes": 64 * MIB, "cpus": 0.1, "pids": 8, "scratch_bytes": MIB, **each}
    enter(room, spec("run-other"))
    enter(room, spec("run-a-1", "run-a", **asked))
    room.started("run-a-1")
    enter(room, spec("run-a-2", "run-a", **asked), "run-a-1")
    with pytest.raises(RefusedError, match=ceiling):
        enter(room, spec("run-a-3", "run-a", **asked), "run-a-1")
    # One of a series that is as large as all together is no way around it.
    room.leave("run-a-2")
    enter(room, spec("run-a-4", "run-a", **asked), "run-a-1")


def test_a_series_has_one_place_and_two_of_them_have_two() -> None:
    room = Room(SETTINGS)
    for name in ("run-a-1", "run-a-2", "run-a-3"):
        enter(room, spec(name, "run-a"))
    enter(room, spec("run-b-1", "run-b"))
    busy(room, spec("run-c-1", "run-c"))
    # A run that is called like a series is another train.
    busy(room, spec("run-a"))


def test_what_leaves_while_the_engine_is_asked_is_known_for_what_it_was() -> None:
    room = Room(SETTINGS.model_copy(update={"max_containers": 1}))
    enter(room, spec("run-a-1", "run-a"))
    room.started("run-a-1")
    known = room.inside()
    room.leave("run-a-1")
    room.enter(spec("run-a-2", "run-a"), ["run-a-1"], ["run-a-1"], known)
