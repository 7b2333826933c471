"""The model card and the table of metrics: facts on record, and nothing of a document that becomes markup."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from result_documents import accepted_order, release, round_entry, signed_policy

from orchestrator.federation.orders import FolderQueue, RunFolder, RunProgress, RunState
from orchestrator.results.card import NOT_STATED, model_card
from orchestrator.results.card_page import card_page, text
from orchestrator.results.facts import POLICY_FILE, Facts, read_facts
from orchestrator.results.metrics import metrics_table
from orchestrator.results.provenance import provenance_statement
from policies.documents import digest_of
from policies.policy import DifferentialPrivacy, ReleaseRules
from policies.signing import generate_key, load_signer

AUC = {"amstel": 0.61, "berkel": 0.68, "dommel": 0.74}
EXAMPLES = {"amstel": 50, "berkel": 120, "dommel": 70}
EVIL = "<script>alert(1)</script> [x](javascript:alert(1)) | # `y` \u202e"


def ran(
    tmp_path: Path,
    state: RunState = RunState.FINISHED,
    rounds: int = 2,
    *,
    named: bool = False,
    **policy: Any,
) -> RunFolder:
    generate_key(tmp_path / "requester.pem")
    signer = load_signer(tmp_path / "requester.pem")
    document, envelope = signed_policy(signer, **policy)
    accepted = accepted_order(station_results=named, policy_digest=digest_of(document), signer=signer)
    run = FolderQueue(tmp_path / "runs").submit(accepted)
    (run.path / POLICY_FILE).write_bytes(envelope)
    run.write_rounds(
        [round_entry(number, AUC, EXAMPLES, {"eem": "CONSENT_STALE"}) for number in range(1, rounds + 1)]
    )
    run.write_progress(RunProgress(state=state, round=rounds, rounds=2, weights=digest_of(b"w"), code=""))
    return run


def facts_of(tmp_path: Path, **changes: Any) -> Facts:
    return read_facts(ran(tmp_path, **changes))


def test_everything_of_a_document_is_text_in_the_page(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, title=EVIL, radiologist=EVIL, summary={"nl": EVIL, "en": EVIL})
    assert facts.policy is not None
    manifest = facts.accepted.manifest.model_copy(update={"title": EVIL, "licence": EVIL})
    accepted = facts.accepted.model_copy(update={"manifest": manifest})
    rounds = [dict(entry) | {"missing": {EVIL: EVIL}} for entry in facts.rounds]
    page = card_page(model_card(dataclasses.replace(facts, accepted=accepted, rounds=rounds)))
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "](javascript" not in page
    assert "\u202e" not in page
    # A title is one line, whatever it says.
    assert [line for line in page.splitlines() if line.startswith("# ")] == [f"# {text(EVIL)}"]


@pytest.mark.parametrize(
    "evil", ["a\n# b", "a\n\n- [ ] c", "&lt;b&gt;", "![x](//y)", "a | b", "*a* _b_ `c`", "~~a~~", "https://x"]
)
def test_a_text_stays_on_its_line_and_is_no_markdown(evil: str) -> None:
    shown = text(evil)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for sign in "*_`[]()#|!~":
        assert sign not in bare.replace(f"\\{sign}", "")
    assert "https://" not in shown


def test_the_table_of_metrics_has_a_number_a_line(tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(metrics_table(facts_of(tmp_path, named=True)).decode())))
    assert list(lines[0]) == ["round", "stage", "station", "metric", "value", "code"]
    of_two = [line for line in lines if line["round"] == "2"]
    assert {
        "round": "2",
        "stage": "evaluate",
        "station": "berkel",
        "metric": "auc",
        "value": "0.68",
        "code": "",
    } in of_two
    assert {
        "round": "2",
        "stage": "",
        "station": "eem",
        "metric": "",
        "value": "",
        "code": "CONSENT_STALE",
    } in of_two
    assert sum(line["station"] == "(pooled)" for line in of_two) == 2


def test_who_was_missing_and_why_is_in_card_and_statement(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    card = model_card(facts)
    assert card["stations"]["left_out"] == {"CONSENT_STALE": "1 station"}
    assert any("took no part" in line for line in card["limitations"])
    statement = provenance_statement(facts, {"metrics.json": digest_of(b"x")})["predicate"]
    assert statement["left_out"] == {"eem": {"CONSENT_STALE": [1, 2]}}
    assert statement["signature"]["key"] is None
    assert "Unsigned" in statement["signature"]["means"]


def test_what_is_not_on_record_is_not_stated(tmp_path: Path) -> None:
    run = ran(tmp_path)
    (run.path / POLICY_FILE).unlink()
    card = model_card(read_facts(run))
    assert (
        card["use"]["benefit"] == card["policy"]["model_status"] == card["data"]["collections"] == NOT_STATED
    )
    assert any("policy was not kept" in line for line in card["limitations"])
    # Another policy than the order's is none.
    (run.path / POLICY_FILE).write_bytes(signed_policy(load_signer(tmp_path / "requester.pem"), version=2)[1])
    assert read_facts(run).policy is None


def test_noise_is_on_the_card(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    rules = ReleaseRules.model_validate_json(json.dumps(release(station_results=False)))
    private = rules.model_copy(
        update={"differential_privacy": DifferentialPrivacy(noise_multiplier=2.0, epsilon=3.0, delta=1e-6)}
    )
    noisy = dataclasses.replace(facts, accepted=facts.accepted.model_copy(update={"release": private}))
    told = model_card(noisy)["release"]["differential_privacy"]
    assert (told["epsilon_at_most"], told["noise_multiplier"]) == (3.0, 2.0)
    assert not any("No differential privacy" in line for line in model_card(noisy)["limitations"])
    assert any("No differential privacy" in line for line in model_card(facts)["limitations"])


@pytest.mark.parametrize(("state", "word"), [(RunState.FAILED, "failed"), (RunState.STOPPED, "was stopped")])
def test_a_card_of_a_run_that_ended_early_says_so_first(tmp_path: Path, state: RunState, word: str) -> None:
    run = ran(tmp_path, state, 1)
    run.write_json("checkpoint.json", {"round": 2, "weights": {"digest": digest_of(b"two"), "size": 3}})
    facts = read_facts(run)
    assert (facts.complete, facts.weights, facts.model_round) == (False, digest_of(b"two"), 2)
    card = model_card(facts)
    assert card["limitations"][0].startswith(f"Incomplete: the run {word}")
    assert "The model is the one of round 2." in card["outcome"]["words"]
    assert "Incomplete" in card_page(card).splitlines()[2]
