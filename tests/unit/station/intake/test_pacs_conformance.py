"""The conformance statement says what the code does, and the examples in the docstrings of the sources run."""

import doctest
import importlib

import pytest

from station.intake.settings import IntakeSettings
from station.intake.sources.conformance import STATEMENT, render, tables
from station.intake.sources.sop_classes import get_contexts, receiver_contexts


def test_the_statement_is_what_the_code_writes() -> None:
    statement = STATEMENT.read_text(encoding="utf-8")
    assert render(statement) == statement, "run: python -m station.intake.sources.conformance"


def test_every_table_stands_in_it_once() -> None:
    statement = STATEMENT.read_text(encoding="utf-8")
    for name in tables():
        assert statement.count(f"<!-- table: {name} -->") == 1


def test_a_statement_that_says_otherwise_is_seen() -> None:
    statement = STATEMENT.read_text(encoding="utf-8")
    assert render(statement.replace("| A700 |", "| A701 |")) == statement


def test_what_is_negotiated_fits_into_one_association() -> None:
    classes = IntakeSettings().sop_classes
    contexts, roles = get_contexts(classes)
    assert len(contexts) <= 128
    assert {role.sop_class_uid for role in roles} == set(classes)
    accepted = {context.abstract_syntax for context in receiver_contexts(classes)}
    assert set(classes) < accepted
    assert "1.2.840.10008.1.2.1.99" not in {
        syntax for context in receiver_contexts(classes) for syntax in context.transfer_syntax
    }


@pytest.mark.parametrize("name", ["manners", "pacs_faults"])
def test_examples_of_the_sources(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"station.intake.sources.{name}"))
    assert result.attempted
    assert result.failed == 0
