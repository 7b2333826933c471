"""Mirror reports over the real API and the station's own program: each hospital gets its own, and nobody gets another's."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_api_kit import served_home
from results_world import AUC, FIVE, ResultsWorld, results_world

from orchestrator.federation.orders import RunState
from orchestrator.registry.access import Role
from policies.console import run
from policies.errors import ExitCode, NotFoundError, TrustError, WireError
from policies.mirror_report import read_report
from policies.wire.registry_client import RegistryClient
from station.cli import app
from station.egress.records.calls import Call
from station.runs.mirror import MirrorReports
from station.web.api import create_api
from station.web.mirror_api import add_mirror_routes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultsWorld]:
    with results_world(tmp_path_factory.mktemp("mirror"), station_results="false") as found:
        yield found


def test_each_station_gets_its_own_report(world: ResultsWorld) -> None:
    digest = world.ordered()
    world.ended(digest, write=False)
    for name in FIVE:
        data = world.station(name).get_mirror_report(digest)
        report = read_report(data)
        auc = next(value for value in report.values if value.metric == "auc")
        assert (report.station, auc.own) == (name, AUC[name])
        others = {AUC[other] for other in FIVE if other != name} - {auc.lowest, auc.highest}
        assert not [value for value in others if str(value) in data.decode()]
        assert not set(FIVE) - {name} & set(re.findall(r"[a-z]+", data.decode()))


def test_nobody_gets_the_report_of_a_station_but_itself(world: ResultsWorld) -> None:
    digest = world.ordered(FIVE[:4])
    world.ended(digest, write=False)
    # There is no way to name another: whoever asks gets what is its own.
    token = world.place.services.access.new_token(Role.OPERATOR, "operator")
    with world.place.raw(Authorization=f"Bearer {token}") as raw:
        assert raw.get(f"/api/v1/runs/{digest}/mirror-report?station=amstel").status_code == 403
    for role in (Role.RESEARCHER, Role.BOARD, Role.OPERATOR, Role.AUDITOR, Role.WITNESS):
        with pytest.raises(TrustError):
            world.place.client(role, f"{role.value}-2").get_mirror_report(digest)
    for outsider in ("ijssel", "elsewhere"):
        with pytest.raises(NotFoundError):
            world.station(outsider).get_mirror_report(digest)
    with pytest.raises(TrustError):
        world.place.with_token(None).get_mirror_report(digest)


def test_a_signature_of_one_station_opens_no_other_run_or_route(world: ResultsWorld) -> None:
    digest = world.ordered()
    world.ended(digest, write=False)
    amstel = world.station("amstel")
    with pytest.raises(TrustError):
        amstel.get_run(digest)
    with pytest.raises(TrustError):
        amstel.get_result_file(digest, "metrics.json", world.folder / "x")
    assert read_report(amstel.get_mirror_report(digest)).station == "amstel"


def test_a_run_that_goes_on_has_no_report_yet(world: ResultsWorld) -> None:
    digest = world.ordered()
    world.ended(digest, RunState.RUNNING, rounds=1, write=False)
    with pytest.raises(NotFoundError, match="not over"):
        world.station("amstel").get_mirror_report(digest)
    world.ended(digest, RunState.STOPPED, rounds=1, write=False)
    assert read_report(world.station("amstel").get_mirror_report(digest)).state == "stopped"


def station_home(world: ResultsWorld, digest: str, name: str, calls: list[Call]) -> Any:
    """A station's folder as far as the command line looks, with its API behind the socket."""

    class Desk:
        def runs(self) -> list[dict[str, object]]:
            return [
                {
                    "order": digest,
                    "policy": "trivial",
                    "correlation_id": "c0ffee",
                    "seen": "2026-11-22T10:00:00Z",
                }
            ]

    def connect() -> RegistryClient:
        return RegistryClient(world.place.url, world.place.ca, signer=world.keys[name])

    desk: Any = Desk()
    api = create_api(desk, "t" * 64)
    # The list of runs stands in for the station's desk; the way to the orchestrator is the real one.
    api.router.routes = [route for route in api.router.routes if getattr(route, "path", "") != "/v1/runs"]
    api.get("/v1/runs")(desk.runs)
    add_mirror_routes(api, MirrorReports(name, connect, calls.append))
    return served_home(api, "t" * 64)


def test_the_operator_sees_and_saves_the_report(
    world: ResultsWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    digest = world.ordered()
    world.ended(digest, write=False)
    calls: list[Call] = []
    with station_home(world, digest, "dommel", calls) as home:
        page = tmp_path / "report.html"
        asked = ["mirror-report", "trivial", "--home", str(home)]
        assert run(app, [*asked, "--out", str(page)]) == ExitCode.OK
        said = capsys.readouterr().out
        assert "0.7411" in said
        assert "evaluate auc" in said
        assert "Spiegelrapport van dommel" in page.read_text()
        assert "<script" not in page.read_text()
        assert run(app, [*asked, "--out", str(page)]) == ExitCode.USAGE
        capsys.readouterr()
        assert run(app, [*asked, "--json"]) == ExitCode.OK
        assert json.loads(capsys.readouterr().out)["station"] == "dommel"
    assert calls == [Call.MIRROR_REPORT, Call.MIRROR_REPORT]


def test_a_report_of_another_station_is_not_shown(world: ResultsWorld) -> None:
    digest = world.ordered()
    world.ended(digest, write=False)

    def connect() -> RegistryClient:
        return RegistryClient(world.place.url, world.place.ca, signer=world.keys["berkel"])

    with pytest.raises(WireError, match="another report"):
        MirrorReports("amstel", connect, lambda _: None).fetch(digest)
