"""Releases that wait for a person: what a look at them reads, two last words at once, and a clock that leaps."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from review_kit import (
    HOURS,
    PENDING,
    Standstill,
    asked,
    digest,
    later,
    left,
    park_one,
    parked_files,
    review,
    standing_still,
)
from sqlalchemy import event, text
from station_kit import StationKit

import station.egress.review.queue as queue_module
from policies.errors import UsageError
from station.egress.review.parked import encode_parked
from station.egress.review.queue import ReviewQueue
from station.egress.review.reviews import ReviewState


@pytest.fixture(scope="module")
def standstill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    with standing_still(tmp_path_factory.mktemp("reviewing")) as made:
        yield made


@pytest.fixture
def kit(standstill: tuple[Standstill, bytes]) -> Iterator[StationKit]:
    """A station where one release waits for one person."""
    with standstill[0].going_on() as made:
        yield made


@pytest.fixture
def envelope(standstill: tuple[Standstill, bytes]) -> bytes:
    return standstill[1]


@contextmanager
def statements(kit: StationKit) -> Iterator[tuple[list[str], list[str]]]:
    """What is asked of the database meanwhile: by readers, and by the writer."""
    read: list[str] = []
    written: list[str] = []
    hooks = []
    for engine, into in ((kit.database._reader, read), (kit.database._writer, written)):

        def note(_c: Any, _u: Any, statement: str, *_: Any, into: list[str] = into) -> None:
            into.append(statement)

        event.listen(engine, "before_cursor_execute", note)
        hooks.append((engine, note))
    try:
        yield read, written
    finally:
        for engine, note in hooks:
            event.remove(engine, "before_cursor_execute", note)


def of_documents(asked_for: list[str]) -> list[str]:
    return [one for one in asked_for if re.search(r"reviews\.document\b", one)]


# -- what is read


def test_no_list_look_or_poll_reads_a_parked_document(kit: StationKit, envelope: bytes) -> None:
    # Once: whose data it rests on.
    kit.reviewing.look()
    with statements(kit) as (read, written):
        assert [one.number for one in kit.reviewing.queue.list()] == [1]
        assert kit.reviewing.queue.find(digest(envelope), 1, "train") == review(kit)
        assert kit.reviewing.look() == 0
        assert not written, "nor is anybody kept from writing by a look that ends nothing"
        assert asked(kit, envelope) == PENDING
    assert any("FROM reviews" in one for one in read)
    assert of_documents(read + written) == []
    with statements(kit) as (read, _):
        kit.reviewing.queue.payload(1)
    assert len(of_documents(read)) == 1


def test_a_document_is_encoded_before_the_transaction(
    kit: StationKit, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def encode(document: Any) -> bytes:
        encoded.append(getattr(kit.database._here, "writing", False))
        return encode_parked(document)

    monkeypatch.setattr(queue_module, "encode_parked", encode)
    park_one(kit, envelope, 2)
    assert encoded == [False]


def test_files_that_no_review_names_go_after_an_end_and_once_an_hour(kit: StationKit) -> None:
    kit.reviewing.look()
    orphan = kit.paths.reviews / "77.safetensors"
    orphan.write_bytes(b"orphan")
    kit.reviewing.look()
    assert orphan.exists()
    later(kit, hours=1)
    kit.reviewing.look()
    assert parked_files(kit) == ["1.safetensors"]
    orphan.write_bytes(b"orphan")
    kit.reviewing.withhold(1, "anna", "no")
    kit.reviewing.look()
    assert parked_files(kit) == []
    with kit.database.read() as session:
        assert session.execute(text("SELECT document FROM reviews")).scalars().all() == [None]


# -- two at once


@pytest.mark.parametrize("moment", ["document", "arrays_of", "record"])
def test_of_two_last_words_at_once_the_second_hears_that_it_is_over(
    kit: StationKit, envelope: bytes, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever the first one comes in between: before the files are looked at, before they are linked, before it is recorded."""
    place: Any = kit.releases if moment == "record" else kit.reviewing.queue
    original, calls = getattr(place, moment), []
    # Its document is read first to know whose data it rests on, then with the files.
    when = 2 if moment == "document" else 1

    def in_between(*args: Any) -> Any:
        calls.append(moment)
        found = original(*args) if moment == "document" else None
        if len(calls) == when:
            assert kit.reviewing.release(1, "anna").state is ReviewState.RELEASED
        return found or original(*args)

    monkeypatch.setattr(place, moment, in_between)
    with pytest.raises(UsageError, match="waits no longer: released"):
        kit.reviewing.release(1, "bert")
    assert left(kit) == [(digest(envelope), 1)]
    assert review(kit).released_by == ("anna",)
    assert asked(kit, envelope)[0] == "released"


# -- a clock that leaps


def test_a_leap_of_the_clock_ends_nothing_that_waits_until_it_has_stood(
    kit: StationKit, envelope: bytes
) -> None:
    elapsed = [0.0]
    queue = ReviewQueue(kit.database, kit.audit, kit.paths.reviews, kit.clock, lambda: elapsed[0])
    one = queue.get(1)
    assert not queue.is_over(one)

    def passes(**delta: float) -> None:
        kit.clock.forward(**delta)
        elapsed[0] += timedelta(**delta).total_seconds()

    passes(minutes=10)
    kit.clock.forward(days=400)
    for _ in range(5):
        assert not queue.is_over(one)
        passes(minutes=11)
    # Set right: it waits its time, no less and no more.
    kit.clock.forward(days=-400)
    assert not queue.is_over(one)
    passes(hours=HOURS)
    assert queue.is_over(one)


def test_a_leap_that_stands_is_believed_and_meanwhile_nothing_leaves(
    kit: StationKit, envelope: bytes
) -> None:
    elapsed = [0.0]
    queue = ReviewQueue(kit.database, kit.audit, kit.paths.reviews, kit.clock, lambda: elapsed[0])
    one = queue.get(1)
    assert not queue.is_over(one)
    kit.clock.forward(days=1)
    assert not queue.is_over(one)
    with pytest.raises(UsageError, match="REVIEW_TIMEOUT"):
        queue.say(1, "anna", 1)
    kit.clock.forward(hours=1)
    elapsed[0] += 3600
    assert queue.is_over(one)
