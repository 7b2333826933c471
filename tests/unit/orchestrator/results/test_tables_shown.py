"""Tables of a run: pooled ones where no single hospital's are shown, and each hospital's own beside them in its mirror report."""

import json
from pathlib import Path
from typing import Any

import pytest
from table_rounds import FOUR, MANIFEST, entry_of, order_over, over

from orchestrator.federation.orders import AcceptedOrder, RunProgress, RunState
from orchestrator.federation.told_tables import note_untold
from orchestrator.results.mirror import mirror_report
from orchestrator.results.shown import shown_rounds
from orchestrator.results.tables import drawable
from policies.mirror_page import report_page
from policies.mirror_report import MirrorReport, MirrorTable, read_report
from policies.rows import HIDDEN
from policies.withheld import DIFFERENCE, PARTLY, TELLS_ONE, TOO_FEW
from station.cli.mirror import _show

DONE = RunProgress(state=RunState.FINISHED, round=1, rounds=1)
SUMS = [[[10 + number, 61.5 + number, 900.25]] for number in range(4)]
QUANTILES = [[[0.0, 0.25], [0.25, 0.5]], [[0.25, 0.5], [0.5, 1.0]], *[[[0.0, 0.25], [0.25, 0.5]]] * 2]


def a_round(stations: tuple[str, ...] = FOUR, number: int = 1, **tables: Any) -> dict[str, Any]:
    entry = entry_of(over(stations, **(tables or {"total": SUMS, "quartiles": QUANTILES})), number)
    return entry | {"took_part": list(stations), "analyse": {name: {} for name in stations}}


def noted(entry: dict[str, Any], accepted: AcceptedOrder, tmp_path: Path) -> dict[str, Any]:
    note_untold(entry, accepted, tmp_path)
    return entry


def report_of(accepted: AcceptedOrder, rounds: list[dict[str, Any]], station: str = "amstel") -> MirrorReport:
    found = mirror_report(accepted, DONE, rounds, station)
    assert read_report(found.model_dump_json().encode()) == found
    return found


def tables_of(report: MirrorReport) -> dict[str, MirrorTable]:
    return {table.table: table for table in report.tables}


# -- what the requester sees -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_note", [True, False])
def test_a_policy_without_single_results_shows_the_pooled_tables(tmp_path: Path, with_note: bool) -> None:
    accepted, entry = order_over(), a_round()
    if with_note:
        noted(entry, accepted, tmp_path)
    (shown,) = shown_rounds(accepted, [entry])
    pooled = shown["pooled_tables"]["analyse"]
    assert pooled["lung_shares"] == {"of": 4, "table": [[46], [74], [20], [0]]}
    assert pooled["quartiles"] == {"of": 4, "table": [[0.0, 0.5], [0.25, 1.0]]}
    assert pooled["total"]["table"] == [[46, 252.0, 3601.0]]
    assert len(pooled["total"]["moments"]) == 1
    assert shown["summed_tables"]["analyse"].keys() == {"lung_shares", "total"}
    assert (shown["tables"], shown["withheld"]) == ({}, {})
    # Of quantiles, which are no sums, the bounds of all together are drawn.
    assert [item.key for item in drawable(MANIFEST, shown)] == ["lung_shares", "total", "quartiles"]
    told = json.dumps(shown["pooled_tables"])
    assert not [name for name in FOUR if name in told]


def test_what_is_not_told_is_shown_by_its_code_alone(tmp_path: Path) -> None:
    accepted, entry = order_over(FOUR[:2]), a_round(FOUR[:2])
    (shown,) = shown_rounds(accepted, [noted(entry, accepted, tmp_path)])
    assert (shown["pooled_tables"], shown["summed_tables"]) == ({"analyse": {}}, {"analyse": {}})
    assert shown["withheld"] == {"analyse": dict.fromkeys(("lung_shares", "quartiles", "total"), TOO_FEW)}
    same = [QUANTILES[0]] * 4
    (shown,) = shown_rounds(order_over(), [a_round(quartiles=same)])
    assert shown["withheld"] == {"analyse": {"quartiles": TELLS_ONE}}
    assert shown["pooled_tables"]["analyse"].keys() == {"lung_shares"}


def test_a_round_over_one_hospital_less_is_not_told_beside_the_first() -> None:
    rounds = [a_round(), a_round(FOUR[:3], 2)]
    shown = shown_rounds(order_over(), rounds)
    assert shown[1]["pooled_tables"] == {"analyse": {}}
    assert set(shown[1]["withheld"]["analyse"].values()) == {DIFFERENCE}


# -- what a hospital sees ----------------------------------------------------------------------------------------------


def test_a_hospital_sees_its_own_table_beside_that_of_all(tmp_path: Path) -> None:
    accepted = order_over()
    rounds = [noted(a_round(), accepted, tmp_path)]
    found = tables_of(report_of(accepted, rounds, "berkel"))
    shares = found["lung_shares"]
    assert shares.own == [[11], [19], [5], [0]]
    assert shares.pooled == [[46], [74], [20], [0]]
    assert (shares.hospitals, shares.code, shares.lines[-1]) == (4, "", "missing")
    assert found["total"].own == [[11, 62.5, 900.25]]
    assert found["total"].pooled == [[46, 252.0, 3601.0]]
    assert found["quartiles"].own == [[0.25, 0.5], [0.5, 1.0]]
    assert found["quartiles"].pooled == [[0.0, 0.5], [0.25, 1.0]]


def test_a_cell_that_another_hides_is_hidden_and_no_subtraction_gives_it() -> None:
    tables = over(FOUR, total=[*SUMS[:3], [[HIDDEN, 0.0, 0.0]]])
    tables["eem"]["lung_shares"] = [[HIDDEN], [HIDDEN], [12], [0]]
    entry = entry_of(tables) | {"took_part": list(FOUR)}
    for own in FOUR:
        found = tables_of(report_of(order_over(), [entry], own))
        assert found["lung_shares"].pooled == [[None], [None], [27], [0]]
        assert found["total"].pooled == [[None, None, None]]
    mine = tables_of(report_of(order_over(), [entry], "eem"))
    assert mine["lung_shares"].own == [[None], [None], [12], [0]]
    assert mine["total"].own == [[None, None, None]]


@pytest.mark.parametrize("station_results", [True, False])
@pytest.mark.parametrize("number", [1, 2])
def test_of_two_hospitals_neither_learns_the_others_table(number: int, station_results: bool) -> None:
    accepted = order_over(FOUR[:number])
    release = accepted.release.model_copy(update={"station_results": station_results})
    report = report_of(accepted.model_copy(update={"release": release}), [a_round(FOUR[:number])])
    assert report.tables
    for table in report.tables:
        assert (table.pooled, table.code) == (None, TOO_FEW)


def test_who_released_no_table_learns_nothing_of_it_and_who_did_learns_no_pool_of_some() -> None:
    tables = over(FOUR, total=SUMS)
    del tables["amstel"]["total"]
    entry = entry_of(tables) | {"took_part": list(FOUR)}
    assert tables_of(report_of(order_over(), [entry], "amstel")).keys() == {"lung_shares"}
    others = tables_of(report_of(order_over(), [entry], "eem"))
    assert (others["total"].pooled, others["total"].code) == (None, PARTLY)
    del tables["amstel"]
    entry = entry_of(tables) | {"took_part": list(FOUR[1:])}
    assert report_of(order_over(), [entry], "amstel").tables == []


def test_the_last_round_that_is_told_stands() -> None:
    rounds = [a_round(), a_round(FOUR[:3], 2)]
    table = tables_of(report_of(order_over(), rounds))["lung_shares"]
    assert (table.round, table.hospitals, table.code) == (1, 4, "")


def test_the_operators_screen_and_the_page_show_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tables = over(FOUR, total=SUMS)
    tables["eem"]["lung_shares"] = [[HIDDEN], [HIDDEN], [12], [0]]
    report = report_of(order_over(), [entry_of(tables) | {"took_part": list(FOUR)}], "eem")
    _show(report)
    said = capsys.readouterr().out
    for text in ("lung_shares (count)", "hidden", "27", "900.25", "3601", "0.25 to 0.5"):
        assert text in said, text
    for language, words in (
        ("nl", ("Tabel lung_shares", "verborgen", "Alle 4 ziekenhuizen")),
        ("en", ("Table total", "hidden")),
    ):
        page = report_page(report, language)  # type: ignore[arg-type]
        for text in (*words, "900.25", "3601"):
            assert text in page, text
    few = report_of(order_over(FOUR[:2]), [a_round(FOUR[:2])])
    _show(few)
    assert "the pooled table is not told: fewer than 3" in capsys.readouterr().out
    assert "minder dan 3 ziekenhuizen" in report_page(few, "nl")


def test_a_page_takes_names_of_a_train_as_text() -> None:
    report = report_of(order_over(), [a_round()])
    evil = report.tables[0].model_copy(update={"lines": ["<script>x</script>"] * 4})
    page = report_page(report.model_copy(update={"tables": [evil]}), "en")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
