"""Attack: a station, or who only knows its public key, asks without end. The others' requests come through all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_held_polls import CONFIRM, OTHERS, Behind, run, until

from orchestrator.front.fleet_places import IN_QUEUE, ROOM_BYTES, SMALL_BYTES, WAITING, FleetPlaces
from orchestrator.front.polls import PULL_ROUTE

BEAT = "/v1/fleet/send-node-heartbeat"


@pytest.mark.parametrize("route", [PULL_ROUTE, CONFIRM, BEAT])
def test_only_what_the_node_signed_as_flower_would_have_it_reaches_the_superlink(
    tmp_path: Path, route: str
) -> None:
    async def act(found: Behind) -> None:
        for refused in ({"signed": False}, {"age_s": 3600.0}, {"age_s": -60.0}):
            assert (await found.poll(to=route, **refused)).status_code == 401
        assert not found.superlink.asked
        # Flower takes five minutes, so do we.
        assert (await found.poll(to=route, age_s=240.0)).status_code == 200

    run(tmp_path, act)


@pytest.mark.parametrize("route", [CONFIRM, BEAT])
def test_what_one_station_asks_without_end_is_told_to_come_back(tmp_path: Path, route: str) -> None:
    async def act(found: Behind) -> None:
        found.superlink.wait = asyncio.Event()
        flood = [asyncio.create_task(found.poll(to=route)) for _ in range(50)]
        places = IN_QUEUE + WAITING
        await until(lambda: sum(each.done() for each in flood) == len(flood) - places)
        refused = [each.result() for each in flood if each.done()]
        assert {(each.status_code, each.headers["retry-after"]) for each in refused} == {(503, "1")}
        # Of those with a place two stand in the queue: another station's finds one of the SuperLink's free.
        other = asyncio.create_task(found.poll(to=route, key=OTHERS[0]))
        await until(lambda: found.superlink.at_once == (1 if route == BEAT else IN_QUEUE + 1))
        found.superlink.wait.set()
        assert (await other).status_code == 200
        assert sorted([(await each).status_code for each in flood])[:places] == [200] * places
        # And its places are free again.
        assert (await found.poll(to=route)).status_code == 200

    run(tmp_path, act)


def test_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"n"
        await asyncio.Event().wait()

    async def act(found: Behind) -> None:
        assert (await found.poll(to=CONFIRM, body=never())).status_code == 408
        assert not found.superlink.asked

    run(tmp_path, act, body_s=0.05)


def test_large_bodies_under_way_are_bounded_and_small_ones_pass() -> None:
    largest = 4 << 20
    places = FleetPlaces(largest)
    with ExitStack() as under_way:
        for number in range(ROOM_BYTES // largest):
            name = f"station {number // 2}"
            assert under_way.enter_context(places.entered(name, largest, heartbeat=False)) is not None
            with places.entered(name, largest, heartbeat=False) as third:
                # One station has two of the largest, whoever else has none.
                assert (third is None) == bool(number % 2)
        with places.entered("another", SMALL_BYTES + 1, heartbeat=False) as one_more:
            assert one_more is None
        with places.entered("another", SMALL_BYTES, heartbeat=False) as small:
            assert small is not None
    with places.entered("another", largest, heartbeat=False) as now:
        assert now is not None
