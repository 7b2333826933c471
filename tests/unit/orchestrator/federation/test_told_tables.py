"""Pooled tables where no single hospital's are shown: none from which one hospital's follows, in a run and over all orders of a policy."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from table_rounds import FOUR, Table, entry_of, order_over, over

from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder
from orchestrator.federation.told_tables import note_untold, one_at_a_time
from policies.rows import HIDDEN
from policies.withheld import DIFFERENCE, TELLS_ONE, TOO_FEW


def untold(
    entry: dict[str, Any], accepted: AcceptedOrder | None = None, runs: Path = Path("/nowhere")
) -> Any:
    note_untold(entry, accepted or order_over(), runs)
    return entry["untold_tables"].get("analyse", {})


@pytest.mark.parametrize(("number", "code"), [(1, TOO_FEW), (2, TOO_FEW), (3, ""), (4, "")])
def test_a_pool_is_of_three_hospitals_or_more(number: int, code: str) -> None:
    assert untold(entry_of(over(FOUR[:number]))).get("lung_shares", "") == code


def test_a_pool_of_which_one_hospital_has_all_tells_that_the_others_have_none() -> None:
    nobody: Table = [[0], [0], [0], [0]]
    tables = {name: {"lung_shares": nobody} for name in FOUR} | {"amstel": over(FOUR)["berkel"]}
    assert untold(entry_of(tables)) == {"lung_shares": TELLS_ONE}
    # With a second one that has some it is not known who.
    assert untold(entry_of(tables | {"eem": over(FOUR)["dommel"]})) == {}
    # Nor where one hides what it has.
    assert untold(entry_of(tables | {"eem": {"lung_shares": [[HIDDEN], [0], [0], [HIDDEN]]}})) == {}


def test_sums_of_which_all_other_patients_have_one_value_tell_every_mean() -> None:
    spread: Table = [[20, 100.0, 700.0]]
    same: Table = [[10, 50.0, 250.0]]
    tables = {name: {"total": same} for name in FOUR} | {"amstel": {"total": spread}}
    assert untold(entry_of(tables)) == {"total": TELLS_ONE}
    assert untold(entry_of(tables | {"eem": {"total": spread}})) == {}
    hidden: Table = [[HIDDEN, 0.0, 0.0]]
    assert untold(entry_of({name: {"total": same} for name in FOUR} | {"eem": {"total": hidden}})) == {
        "total": TELLS_ONE
    }, "who hides it takes its own out, and is left with the others'"


def test_a_quantile_of_one_bin_tells_where_everybodys_lies() -> None:
    wide: Table = [[0.0, 0.25], [0.25, 0.5]]
    other: Table = [[0.25, 0.5], [0.5, 1.0]]
    tables = {name: {"quartiles": wide} for name in FOUR}
    assert untold(entry_of(tables)) == {"quartiles": TELLS_ONE}
    assert untold(entry_of(tables | {"eem": {"quartiles": other}})) == {}


# -- over orders -------------------------------------------------------------------------------------------------------


class Runs:
    """The folder of an orchestrator's orders."""

    def __init__(self, path: Path) -> None:
        self.path, self.queue, self.number = path / "runs", FolderQueue(path / "runs"), 0

    def ends(self, stations: Sequence[str], policy: str = "trivial", rounds: int = 1) -> list[Any]:
        """A run over these stations; which of its tables are not told."""
        self.number += 1
        accepted = order_over(stations, policy=policy).model_copy(
            update={"order_digest": "sha256:" + f"{self.number:064x}"}
        )
        folder, found = self.queue.submit(accepted), []
        for number in range(1, rounds + 1):
            entry = entry_of(over(stations), number)
            with one_at_a_time(self.path):
                note_untold(entry, accepted, self.path)
                folder.rounds.append(entry, number)
            found.append(entry["untold_tables"].get("analyse", {}))
        return found


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_two_orders_over_sets_that_differ_by_one_tell_no_hospitals_table(runs: Runs) -> None:
    assert runs.ends(FOUR) == [{}]
    # The difference of the two would be eem's table.
    assert runs.ends(FOUR[:3]) == [{"lung_shares": DIFFERENCE}]
    assert runs.ends((*FOUR, "ijssel")) == [{"lung_shares": DIFFERENCE}]
    # What was not told counts for nothing; the same hospitals, and others entirely, are told.
    assert runs.ends(FOUR, rounds=2) == [{}, {}]
    assert runs.ends(("ijssel", "jeker", "kromme")) == [{}]
    # Another policy is another decision of the board.
    assert runs.ends(FOUR[:3], policy="another") == [{}]


def test_what_was_never_told_closes_no_set(runs: Runs) -> None:
    assert runs.ends(FOUR[:2]) == [{"lung_shares": TOO_FEW}]
    assert runs.ends(FOUR) == [{}]


def test_rounds_of_earlier_versions_count_as_told(runs: Runs) -> None:
    folder = runs.queue.submit(order_over(FOUR).model_copy(update={"order_digest": "sha256:" + "f" * 64}))
    folder.rounds.append(entry_of(over(FOUR)), 1)
    assert "untold_tables" not in folder.read_rounds()[0]
    assert runs.ends(FOUR[1:]) == [{"lung_shares": DIFFERENCE}]


def _end(path: Path, number: int, stations: tuple[str, ...], begin: threading.Barrier) -> None:
    accepted = order_over(stations).model_copy(update={"order_digest": "sha256:" + f"{number:064x}"})
    folder, entry = RunFolder(path / f"{number:064x}"), entry_of(over(stations))
    begin.wait(60)
    with one_at_a_time(path):
        note_untold(entry, accepted, path)
        folder.rounds.append(entry, 1)


def test_of_orders_that_end_at_the_same_moment_only_one_set_is_told(runs: Runs) -> None:
    sets = [tuple(name for name in FOUR if name != left) for left in FOUR]
    for number, stations in enumerate(sets, 1):
        digest = "sha256:" + f"{number:064x}"
        runs.queue.submit(order_over(stations).model_copy(update={"order_digest": digest}))
    # A lock is of an open file: threads stand for processes.
    begin = threading.Barrier(len(sets))
    lives = [
        threading.Thread(target=_end, args=(runs.path, number, stations, begin))
        for number, stations in enumerate(sets, 1)
    ]
    for life in lives:
        life.start()
    for life in lives:
        life.join(60)
    codes = [
        folder.read_rounds()[0]["untold_tables"].get("analyse", {}).get("lung_shares", "")
        for folder in runs.queue.folders()
    ]
    assert sorted(codes) == ["", DIFFERENCE, DIFFERENCE, DIFFERENCE]
