"""Who is next: nobody's many orders keep another's one waiting, and no station carries more than it is asked to."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.federation.places import RUNS_FULL, STATIONS_FULL, Limits, Place, Running, Waiting, choose

LIMITS = Limits(parallel_runs=3, runs_per_station=2)


def _order(digest: str, requester: str = "ann", stations: str = "ab") -> Waiting:
    return Waiting(digest, requester, tuple(stations))


def test_a_requesters_tenth_order_waits_behind_anothers_first() -> None:
    waiting = [*(_order(f"ann-{number}") for number in range(10)), _order("bob-0", "bob")]
    chosen, places = choose(waiting, [Running("ann", ("c",))], {"ann": 1}, LIMITS)
    assert chosen == "bob-0"
    assert places["ann-0"].position == 1
    assert choose(waiting, [], {"ann": 2, "bob": 1}, LIMITS)[0] == "bob-0"
    assert choose(waiting, [], {"ann": 1, "bob": 2}, LIMITS)[0] == "ann-0"


def test_turns_alternate_between_requesters_and_keep_their_age() -> None:
    waiting = [_order("ann-0"), _order("ann-1"), _order("bob-0", "bob"), _order("cas-0", "cas")]
    _, places = choose(waiting, [], {}, Limits(0, 9))
    assert sorted(places, key=lambda digest: places[digest].position) == ["ann-0", "bob-0", "cas-0", "ann-1"]
    assert {place.waiting for place in places.values()} == {RUNS_FULL}


def test_an_order_says_which_stations_are_full() -> None:
    running = [Running("ann", ("a",)), Running("bob", ("a",))]
    chosen, places = choose([_order("x"), _order("y", "cas", "bc")], running, {}, Limits(4, 2))
    assert chosen == "y"
    assert places["x"] == Place(1, STATIONS_FULL, ("a",))


def test_an_order_of_many_stations_is_not_passed_for_ever_by_orders_of_few() -> None:
    """Station b has one place left, and it is kept for the order that waits for a."""
    running = [Running("ann", ("a", "b")), Running("ann", ("a",))]
    chosen, places = choose([_order("wide", "bob", "ab"), _order("small", "cas", "b")], running, {}, LIMITS)
    assert chosen is None
    assert places["small"] == Place(2, STATIONS_FULL, ("b",))


def test_what_was_under_way_goes_on_before_anything_new() -> None:
    waiting = [_order("new", "bob"), Waiting("old", "ann", ("a",), resumed=True)]
    assert choose(waiting, [Running("ann", ("a",))], {"ann": 5}, LIMITS)[0] == "old"


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cas"]),
        st.sets(st.sampled_from("abcd"), min_size=1),
        st.integers(1, 4),
    ),
    max_size=25,
)


@given(ORDERS)
def test_every_order_is_served_and_no_limit_is_passed(orders: list[tuple[str, set[str], int]]) -> None:
    waiting = [
        Waiting(str(number), who, tuple(sorted(names))) for number, (who, names, _) in enumerate(orders)
    ]
    left = {str(number): length for number, (_, _, length) in enumerate(orders)}
    running: list[Waiting] = []
    served: dict[str, int] = {}
    for _ in range(4 * len(orders) * 4 + 1):
        chosen, places = choose(
            waiting, [Running(run.requester, run.stations) for run in running], served, LIMITS
        )
        assert set(places) == {order.digest for order in waiting} - {chosen}
        if chosen is not None:
            taken = next(order for order in waiting if order.digest == chosen)
            waiting.remove(taken)
            running.append(taken)
            served[taken.requester] = max(served.values(), default=0) + 1
            assert len(running) <= LIMITS.parallel_runs
            for name in taken.stations:
                assert sum(name in run.stations for run in running) <= LIMITS.runs_per_station
            continue
        for run in list(running):
            left[run.digest] -= 1
            if left[run.digest] == 0:
                running.remove(run)
    assert not waiting


def test_runs_that_wait_for_people_keep_nobody_out_until_there_are_too_many_processes() -> None:
    idle = [Running(who, ("a", "b"), waits_for_people=True) for who in "pqrstu" for _ in range(2)]
    assert LIMITS.processes == len(idle)
    assert choose([_order("x", "bob")], idle[1:], {}, LIMITS)[0] == "x"
    chosen, places = choose([_order("x", "bob")], idle, {}, LIMITS)
    assert (chosen, places["x"]) == (None, Place(1, RUNS_FULL))
    # It still has its limits where it computes.
    busy = [Running("cas", ("a",))] * LIMITS.runs_per_station
    assert choose([_order("x", "bob")], idle[:3] + busy, {}, LIMITS)[1]["x"] == Place(
        1, STATIONS_FULL, ("a",)
    )


def test_one_requester_has_neither_all_places_while_another_waits_nor_all_processes() -> None:
    anns = [Running("ann", ("a",)), Running("ann", ("b",))]
    bobs = _order("wide", "bob", "ac")
    full = Limits(3, 1)
    # Bob's order waits for a station, and the last place for Bob.
    chosen, places = choose([_order("ann-2", "ann", "d"), bobs], anns, {}, full)
    assert (chosen, places["ann-2"].waiting, places["wide"].waiting) == (None, RUNS_FULL, STATIONS_FULL)
    assert choose([_order("ann-2", "ann", "d")], anns, {}, full)[0] == "ann-2"
    idle = [Running("ann", ("a",), waits_for_people=True)] * (full.processes - full.parallel_runs)
    assert choose([_order("ann-3", "ann", "d")], idle, {}, full)[0] is None
    assert choose([_order("ann-3", "ann", "d"), _order("x", "bob")], idle, {}, full)[0] == "x"


def test_who_waited_for_people_when_the_worker_ended_is_taken_up_again_beside_full_stations() -> None:
    running = [Running("ann", ("a",))] * 3
    old = Waiting("old", "ann", ("a",), resumed=True, waits_for_people=True)
    assert choose([old], running, {}, LIMITS)[0] == "old"
    idle = [Running("ann", ("a",), waits_for_people=True)] * LIMITS.processes
    assert choose([old], idle, {}, LIMITS) == (None, {"old": Place(1, RUNS_FULL)})
