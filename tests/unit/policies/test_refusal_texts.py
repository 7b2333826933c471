import ast
from pathlib import Path

from policies.refusal_texts import CATALOGUE, asking, hospital, returning, text_of
from policies.refusals import RefusalCode

POLICIES = Path(__file__).parents[3] / "policies"


def test_every_code_has_a_text_and_every_text_a_code() -> None:
    assert set(CATALOGUE) == set(RefusalCode)
    assert len(CATALOGUE) == sum(len(part.TEXTS) for part in (asking, hospital, returning))


def test_a_text_is_two_sentences_a_person_can_use() -> None:
    for code, entry in CATALOGUE.items():
        for text in (entry.means, entry.do):
            assert text[0].isupper(), code
            assert text.endswith("."), code
            assert len(text) < 200, code


def test_codes_are_their_own_names() -> None:
    assert all(code.name == code.value for code in RefusalCode)


def test_an_unknown_code_still_says_something() -> None:
    assert text_of("POLICY_REVOKED") is CATALOGUE[RefusalCode.POLICY_REVOKED]
    assert "does not know" in text_of("FROM_THE_FUTURE").means


def test_a_policy_in_force_is_made_in_one_module() -> None:
    makers = {
        path.relative_to(POLICIES).as_posix()
        for path in POLICIES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "PolicyInForce"
    }
    assert makers == {"trust/verification.py"}
