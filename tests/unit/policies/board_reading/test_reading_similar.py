"""`pht-board similar`: a question put in other words, or in the other language, is found among unrelated ones."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from board_kit import EXAMPLE, NOW, BoardKit, example_policy
from reading_kit import MANIFEST

from policies.board.similarity.questions import THRESHOLD, ResearchQuestion, attention_of, question_of, rank
from policies.board.similarity.words import Text, words_of
from policies.cli import app
from policies.console import run
from policies.documents import load_yaml
from policies.policy import Policy


@dataclass(frozen=True)
class Asked:
    """A question as it is put to a board."""

    title: str
    nl: str
    en: str
    statement: str
    fields: tuple[str, ...] = ()
    collection: str = "thorax-cxr"
    modality: str = "DX"
    organisation: str = "University Hospital A"
    kind: str = "training"


APPROVED = {
    "pneumonia": Asked(
        "Pneumonia on chest radiographs, trained over hospitals",
        "Ziekenhuizen leren samen een computermodel om longontsteking op thoraxfoto's te herkennen.",
        "Hospitals together train a computer model that recognises pneumonia on chest radiographs.",
        "To find out whether a model trained over three hospitals recognises pneumonia on chest radiographs.",
        ("pneumonia",),
    ),
    "nodules": Asked(
        "Growth of lung nodules on low-dose CT",
        "Meten hoe snel knobbeltjes in de longen groeien op opeenvolgende CT-scans.",
        "Measuring how fast nodules in the lungs grow on consecutive CT scans.",
        "To predict which lung nodules found by screening become malignant.",
        ("smoking_status",),
        "thorax-ct",
        "CT",
        "Cancer Institute B",
    ),
    "dose": Asked(
        "Radiation dose of chest CT by body size",
        "Hoeveel straling krijgen patiënten van verschillend postuur bij een CT van de borstkas?",
        "How much radiation do patients of different build receive from a CT of the chest?",
        "To describe the dose indicators of chest CT in relation to height and weight.",
        ("weight", "height"),
        "thorax-ct",
        "CT",
        "Medical Physics C",
        "analysis",
    ),
    "fracture": Asked(
        "Ribfracturen na een val",
        "Een model dat gebroken ribben vindt op foto's van ouderen die gevallen zijn.",
        "A model that finds broken ribs on radiographs of older people who fell.",
        "To support emergency physicians in finding rib fractures.",
        ("age",),
        organisation="Trauma Centre D",
    ),
    "counts": Asked(
        "How many examinations per age group",
        "Aantallen onderzoeken per leeftijdsgroep en geslacht, afgerond.",
        "Numbers of examinations by age group and sex, rounded.",
        "To plan capacity of the radiology departments.",
        ("age", "sex"),
        organisation="Health Council E",
        kind="analysis",
    ),
}
# (the same question by others, in other words; which it is)
PARAPHRASES = [
    (
        Asked(
            "Automatisch opsporen van longontstekingen op röntgenfoto's van de longen",
            "Kan een algoritme zien of iemand een longontsteking heeft op een longfoto?",
            "Can an algorithm see an infection of the lungs on an X-ray?",
            "Nagaan of pneumonie met een neuraal netwerk op longfoto's kan worden vastgesteld.",
            ("pneumonia",),
            organisation="Company F",
        ),
        "pneumonia",
    ),
    (
        Asked(
            "Predicting malignancy of pulmonary nodules",
            "Voorspellen welke longknobbels kwaadaardig zijn.",
            "Predicting which pulmonary nodules turn out to be cancer, from repeated scans.",
            "Een voorspelling van longkanker bij deelnemers aan bevolkingsonderzoek.",
            (),
            "thorax-ct",
            "CT",
            "University Hospital G",
        ),
        "nodules",
    ),
    (
        Asked(
            "Stralingsbelasting van CT-thorax",
            "De stralingsdosis van een CT-scan van de thorax, naar lengte en gewicht van de patiënt.",
            "Exposure in chest CT by patient size.",
            "Dosisindicatoren per lengte en gewicht beschrijven.",
            ("weight",),
            "thorax-ct",
            "CT",
            "Institute H",
            "analysis",
        ),
        "dose",
    ),
    (
        Asked(
            "Detection of fractured ribs in the elderly",
            "Het vinden van ribbreuken bij ouderen na een val.",
            "Detecting rib fractures on chest X-rays of elderly patients in the emergency department.",
            "To help doctors on call not to miss a rib fracture.",
            (),
            organisation="Company I",
        ),
        "fracture",
    ),
]
UNRELATED = Asked(
    "Emfyseem en luchtvervuiling",
    "Hangt fijnstof in de woonomgeving samen met emfyseem?",
    "Does particulate matter near the home go together with emphysema?",
    "To relate the extent of emphysema to exposure to air pollution by postal code.",
    ("postal_code",),
    "thorax-ct",
    "CT",
    "Environment Agency J",
    "analysis",
)


def policy_bytes(asked: Asked, name: str, board: BoardKit | None = None, version: int = 1) -> bytes:
    changes: dict[str, object] = {
        "id": name,
        "version": version,
        "title": asked.title,
        "summary": {"nl": asked.nl, "en": asked.en},
        "purpose.statement": asked.statement,
        "purpose.benefit": "Published results.",
        "requester.organisation": asked.organisation,
        "data.collections": [asked.collection],
        "data.modalities": [asked.modality],
        "data.clinical_fields": list(asked.fields),
        "kind": asked.kind,
    }
    if asked.kind == "analysis":
        changes |= {"runs.strategies": ["none"], "release.tensors": None, "release.trust_statement": None}
    if board is not None:
        changes["requester.key"] = board.keys["requester"].public_hex
    return example_policy(changes)


def question(asked: Asked, name: str = "new-question") -> ResearchQuestion:
    return question_of(load_yaml(Policy, policy_bytes(asked, name), what=name), NOW)


BEFORE = [question(asked, name) for name, asked in APPROVED.items()]


@pytest.mark.parametrize(("asked", "same"), PARAPHRASES, ids=[same for _, same in PARAPHRASES])
def test_a_paraphrase_ranks_above_all_others(asked: Asked, same: str) -> None:
    first, second, *_ = rank(question(asked), BEFORE)
    assert first.name == f"{same}@1"
    assert first.score >= THRESHOLD
    assert first.words > 1.5 * second.words
    assert first.shared_words
    assert not first.same_requester


@pytest.mark.parametrize("name", APPROVED)
def test_unrelated_questions_stay_below_the_threshold(name: str) -> None:
    others = [each for each in BEFORE if each.policy_id != name]
    assert all(each.score < THRESHOLD for each in rank(question(APPROVED[name]), others))
    assert all(each.score < THRESHOLD for each in rank(question(UNRELATED), BEFORE))


def test_what_every_summary_tells_patients_makes_no_two_questions_alike() -> None:
    """The shipped examples share their sentences about what the program sees and how to object; two share a question."""
    shipped = [
        question_of(load_yaml(Policy, path.read_bytes(), what=path.name), NOW)
        for path in (
            EXAMPLE.parent / f"{name}.yaml"
            for name in ("cxr-classification", "cxr-evaluation", "example-command")
        )
    ]
    scores = [{each.name.partition("@")[0]: each.score for each in rank(one, shipped)} for one in shipped]
    assert scores[0]["cxr-evaluation"] >= THRESHOLD
    assert scores[2]["cxr-classification"] < THRESHOLD
    assert scores[2]["cxr-evaluation"] < THRESHOLD


def test_one_language_finds_the_other() -> None:
    dutch = Asked("Klaplong", "Klaplong op de röntgenfoto herkennen.", "-", "Een klaplong vinden.")
    english = Asked(
        "Pneumothorax", "-", "Recognising a pneumothorax on a radiograph.", "To find a pneumothorax."
    )
    found = rank(question(dutch), [*BEFORE, question(english, "pneumothorax")])
    assert found[0].name == "pneumothorax@1"
    assert found[0].score >= THRESHOLD


def test_with_a_single_question_approved_before() -> None:
    """Then every word is as rare as any other: what the texts share must do."""
    pneumonia, unrelated = question(PARAPHRASES[0][0]), question(UNRELATED)
    assert rank(pneumonia, BEFORE[:1])[0].score >= THRESHOLD
    assert rank(unrelated, BEFORE[:1])[0].score < THRESHOLD


def test_its_own_earlier_version_is_not_another_question() -> None:
    assert not rank(question(APPROVED["pneumonia"], "pneumonia"), BEFORE[:1])


def test_the_same_words_score_one_and_no_words_nothing() -> None:
    (same,) = rank(question(APPROVED["pneumonia"]), BEFORE[:1])
    assert same.score == pytest.approx(1.0)
    empty = Asked("-", "-", "-", "-", collection="other", modality="CT", organisation="-", kind="analysis")
    assert rank(question(empty), BEFORE[:1])[0].words < 0.1


def test_words_keep_their_subject_and_lose_the_rest() -> None:
    text = "De röntgenfoto's van ziekenhuizen: longontstekingen, klaplong & CT-scans bij vrouwen!"
    assert [each for each, _ in words_of(text)] == ["pneumonia", "pneumothorax", "woman"]
    assert not Text("the hospitals of the patients").stems


def test_attention_is_drawn_to_others_in_force_only() -> None:
    asked = PARAPHRASES[0][0]
    (point,) = attention_of(rank(question(asked), BEFORE))
    assert point.startswith("pneumonia@1 of University Hospital A looks alike (0.")
    assert "field pneumonia" in point
    mine = Asked(**{**vars(asked), "organisation": "University Hospital  a"})
    assert not attention_of(rank(question(mine), BEFORE))


@pytest.fixture
def board(tmp_path: Path) -> BoardKit:
    board = BoardKit.found(tmp_path)
    board.publish(*(board.signed(policy_bytes(asked, name, board)) for name, asked in APPROVED.items()))
    return board


def test_on_the_command_line(board: BoardKit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, repository = tmp_path / "new.yaml", str(board.repository.folder)
    file.write_bytes(policy_bytes(PARAPHRASES[0][0], "new-question", board))
    assert run(app, ["similar", str(file), "-r", repository]) == 0
    out = capsys.readouterr().out
    assert "pneumonia@1" in out
    assert "nodules@1" not in out
    assert run(app, ["similar", str(file), "-r", repository, "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["name"] == "pneumonia@1"
    assert len(found) == len(APPROVED)
    file.write_bytes(policy_bytes(UNRELATED, "new-question", board))
    assert run(app, ["similar", str(file), "-r", repository]) == 0
    assert "Nothing that was approved looks alike" in capsys.readouterr().out


def test_a_train_alone_is_compared_by_its_manifest(
    board: BoardKit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.yaml").write_text(MANIFEST.format(image="sha256:" + "1" * 64))
    assert (
        run(app, ["similar", str(tmp_path / "train.yaml"), "-r", str(board.repository.folder), "--json"]) == 0
    )
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["pneumonia@1"]


def test_a_folder_that_is_no_repository_is_not_one_without_policies(
    board: BoardKit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.yaml"
    file.write_bytes(policy_bytes(UNRELATED, "new-question", board))
    assert run(app, ["similar", str(file), "-r", str(tmp_path / "mistyped")]) != 0
    assert "Nothing that was approved" not in capsys.readouterr().out


def test_a_review_points_it_out(board: BoardKit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.yaml"
    file.write_bytes(policy_bytes(PARAPHRASES[0][0], "new-question", board))
    assert run(app, ["review", str(file), "-r", str(board.repository.folder)]) == 0
    assert "! pneumonia@1 of University Hospital A looks alike" in capsys.readouterr().out
