"""Attack: trains that spend a patient's privacy until there is none left, and go on.

By more runs, by a new version of the policy, by another policy, by a crash in the middle, by a withdrawal, by a backup that is put
back. The ledger is per patient and over everything; the first release that anybody could not be charged for
does not leave, and a run that would come to it does not begin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from continuity_kit import WitnessedStation
from privacy_kit import DELTA, MULTIPLIER, grant, noise, noisy
from sqlalchemy import text
from station_kit import POLICY, StationKit, instruction, prepare

from policies.documents import digest_of, format_moment
from policies.privacy import Spent, epsilon
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind, Status
from station.settings.privacy import PrivacySettings

ONE = Spent.of(MULTIPLIER).units


@dataclass
class Spender:
    """A requester who orders runs until refused."""

    kit: StationKit
    document: bytes

    def order(self, rounds: int = 1, **changes: Any) -> bytes:
        """A run of three queries a round: an update and two figures."""
        return self.kit.order(
            rounds=rounds, policy_digest=digest_of(self.document), **{"policy_version": 1, **changes}
        )

    def run(self, **changes: Any) -> str | None:
        """One run; returns the code that refused it, or None when all of it left."""
        envelope = self.order(**changes)
        reply = self.kit.prepare(envelope)
        if reply.status is not Status.ACCEPTED:
            return reply.code
        for kind in (Kind.TRAIN, Kind.EVALUATE):
            answer, _ = self.kit.message(envelope, kind)
            if answer.status is not Status.RELEASED:
                return answer.code
        self.kit.service.handle(instruction(envelope, Kind.FINISH), None)
        return None


def station(folder: Path, queries: int, hospital: float = 10.0, **changes: object) -> StationKit:
    """A policy that grants each patient so many queries, in a hospital that grants an epsilon."""
    return StationKit.make(
        folder,
        policy={**noisy(queries), **changes},
        privacy=PrivacySettings(epsilon=hospital, delta=DELTA),
    )


def another(kit: StationKit, version: int, **changes: object) -> Spender:
    """A further policy, or a further version of the one there is."""
    document = kit.board.policy(version, {**POLICY, **noisy(6), **changes})
    kit.board.publish(kit.board.signed(document), now=kit.clock())
    return Spender(kit, document)


def most_spent(kit: StationKit) -> dict[str, int]:
    """What the patient who was charged most was charged, per policy and over all, in queries."""
    with kit.database.read() as session:
        of_policy = session.execute(text("SELECT policy_id, MAX(spent) FROM privacy_spent GROUP BY 1")).all()
        of_all = session.execute(text("SELECT MAX(spent) FROM privacy_patients")).scalar()
    return {**{name: spent // ONE for name, spent in of_policy}, "all": (of_all or 0) // ONE}


def released(kit: StationKit) -> int:
    return len(kit.releases.list())


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = station(tmp_path, 8)
    yield made
    made.close()


def test_runs_spend_what_the_policy_grants_and_no_more(kit: StationKit) -> None:
    spender = Spender(kit, kit.policy)
    assert [spender.run() for _ in range(2)] == [None, None]
    # Eight are granted and six spent: a run of three more would not come to its end, so it does not begin.
    reply = kit.prepare(spender.order())
    assert reply.code == RefusalCode.BUDGET_PRIVACY.value
    refused = [item.record for item in kit.audit.events(limit=100_000)][-1]
    assert "have less left of the policy's budget" in refused.detail, "for the hospital"
    assert "less left" not in reply.model_dump_json(), "and for nobody else"
    assert most_spent(kit) == {"cxr-classification": 6, "all": 6}
    assert released(kit) == 4
    with kit.database.read() as session:
        given = session.scalars(text("SELECT DISTINCT patient FROM cohort_usage_patients ORDER BY 1")).all()
    assert _accounts(kit) == [(patient, 6 * ONE) for patient in given], (
        "everybody whom the train was given paid"
    )


def test_a_new_version_goes_on_where_the_last_one_stopped(kit: StationKit) -> None:
    assert [Spender(kit, kit.policy).run() for _ in range(2)] == [None, None]
    same = another(kit, 2, **{"release.differential_privacy": noise(8)})
    assert same.run(policy_version=2) == RefusalCode.BUDGET_PRIVACY.value
    # Three more than the eight that were granted: one more run, and the board has signed for it.
    more = another(kit, 3, **{"release.differential_privacy": noise(11)})
    assert [more.run(policy_version=3) for _ in range(2)] == [None, RefusalCode.BUDGET_PRIVACY.value]
    assert most_spent(kit) == {"cxr-classification": 9, "all": 9}


def test_another_policy_has_a_budget_of_its_own_within_the_hospitals(tmp_path: Path) -> None:
    kit = station(tmp_path, 6, hospital=grant(10))
    first, second = Spender(kit, kit.policy), another(kit, 1, id="a-second-study")
    assert [first.run() for _ in range(3)] == [None, None, RefusalCode.BUDGET_PRIVACY.value]
    second_runs = [second.run(policy_id="a-second-study") for _ in range(2)]
    # The policy grants six, and of the hospital's ten four were left.
    assert second_runs == [None, RefusalCode.BUDGET_PRIVACY.value]
    assert most_spent(kit) == {"cxr-classification": 6, "a-second-study": 3, "all": 9}
    with kit.database.read() as session:
        spent = session.execute(text("SELECT MAX(spent) FROM privacy_patients")).scalar_one()
    assert epsilon(Spent(spent), DELTA) <= grant(10)
    kit.close()


def test_two_runs_that_each_fit_do_not_fit_together(tmp_path: Path) -> None:
    """Both are admitted while nothing is spent yet; whoever comes to the end of the budget is stopped there."""
    kit = station(tmp_path, 8)
    spender = Spender(kit, kit.policy)
    both = [spender.order(rounds=2) for _ in range(2)]
    assert {kit.prepare(envelope).status for envelope in both} == {Status.ACCEPTED}
    codes = [
        kit.message(envelope, kind, round_)[0].code
        for round_ in (1, 2)
        for envelope in both
        for kind in (Kind.TRAIN, Kind.EVALUATE)
    ]
    assert codes[:5] == [None] * 5
    assert RefusalCode.BUDGET_PRIVACY.value in codes[5:]
    assert most_spent(kit)["all"] <= 8
    assert most_spent(kit)["all"] == sum(draw.cost for draw in kit.privacy.draws()) // ONE
    kit.close()


def test_killed_in_between_a_station_remembers(kit: StationKit) -> None:
    spender = Spender(kit, kit.policy)
    assert spender.run() is None
    kit.again()
    assert spender.run() is None
    kit.again()
    assert spender.run() == RefusalCode.BUDGET_PRIVACY.value
    assert most_spent(kit) == {"cxr-classification": 6, "all": 6}


def test_who_withdrew_and_came_back_has_spent_what_was_spent(kit: StationKit) -> None:
    spender = Spender(kit, kit.policy)
    assert [spender.run() for _ in range(2)] == [None, None]
    before = _accounts(kit)
    kit.intake.consent(**{f"p{number}": "objection" for number in range(1, 40)})
    kit.catalogue.sync()
    assert _accounts(kit) == before, "charges go with nobody's withdrawal"
    kit.intake.consent(p0="consent")
    kit.catalogue.sync()
    assert spender.run() == RefusalCode.BUDGET_PRIVACY.value, "who came back has spent it all the same"


def _accounts(kit: StationKit) -> list[tuple[str, int]]:
    with kit.database.read() as session:
        rows = session.execute(text("SELECT patient, spent FROM privacy_patients ORDER BY 1")).all()
    return [(patient, spent) for patient, spent in rows]


def test_a_backup_gives_no_budget_back(tmp_path: Path) -> None:
    kit = WitnessedStation.witnessed(
        tmp_path / "home", policy=noisy(6), privacy=PrivacySettings(epsilon=10.0, delta=DELTA)
    )
    assert isinstance(kit, WitnessedStation)
    spender = Spender(kit, kit.policy)
    assert spender.run() is None
    kit.stated()
    kit.vouch()
    backup = kit.back_up(tmp_path / "backup")
    assert spender.run() is None
    kit.stated()
    kit.vouch()
    kit.restore(backup)
    assert most_spent(kit)["all"] == 3, "the second run is not on record any more"
    reply, _ = kit.service.handle(prepare(spender.order()), None)
    assert reply.code == RefusalCode.STATION_RESTORED.value
    kit.reconcile()
    kit.import_consent()
    kit.clock.forward(seconds=5)
    kit.policy_is_fresh()
    fresh = {
        "issued": format_moment(kit.clock()),
        "expires": format_moment(kit.clock() + timedelta(days=1)),
    }
    assert spender.run(**fresh) == RefusalCode.BUDGET_PRIVACY.value
    assert released(kit) == 2, "those of the run before the backup"
    kit.close()
