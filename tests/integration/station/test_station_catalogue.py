"""The catalogue's commands against a station as the processes it is."""

import json

from station_programs import Installed

from policies.station_profile import open_profile


def test_what_is_there_what_is_told_and_what_would_stop_a_train(station: Installed) -> None:
    station.serve()
    assert station.ask("catalogue", "query", "--modality", "CT", "--field", "pneumonia=1") == []
    told = station.ask("catalogue", "told")
    assert {row["patients"] for row in told} == {0}
    report = station.ask("readiness")
    assert (report["finished"], report["total"]) == (True, 0)
    assert [one["reason"] for one in report["collections"][0]["obstacles"]] == ["too-few-patients"]
    out = station.folder / "profile.json"
    station.run("profile", "export", out)
    card = json.loads((station.home / "card.json").read_bytes())
    profile = open_profile(out.read_bytes(), card["identity_key"])
    assert profile.station == "amstel"
    assert {one.name for one in profile.collections} == {row["collection"] for row in told}
    ledger = station.folder / "egress.jsonl"
    station.run("egress", "export", ledger)
    types = [json.loads(line).get("type") for line in ledger.read_text().splitlines()]
    assert types.count("counts") == 1
    assert station.ask("egress", "verify")["intact"] is True
