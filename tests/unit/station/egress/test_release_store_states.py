"""Any sequence of answers, refusals, repeats, crashes and restarts: each message is released at most once."""

import shutil
import tempfile
from pathlib import Path

from egress_documents import ORDER
from egress_station import Records, guarded
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from policies.errors import StateError
from policies.refusals import Permitted, RefusalCode, Refused
from station.audit import verify
from station.egress.records.ledger import verify_ledger
from station.egress.records.releases import Recorded

ROUNDS = st.integers(1, 3)
MAXIMUM = 2


class Releases(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.records = Records.open(self.folder)
        self.replies: dict[int, bytes] = {}

    @rule(round_=ROUNDS, loss=st.floats(0, 100))
    def answer(self, round_: int, loss: float) -> None:
        outcome = self.records.record(guarded(self.folder, round_, loss), maximum=MAXIMUM)
        if round_ in self.replies:
            assert isinstance(outcome, Recorded)
            assert outcome.repeated
            assert outcome.release.reply == self.replies[round_]
        elif len(self.replies) == MAXIMUM:
            assert isinstance(outcome, Refused)
            assert outcome.code is RefusalCode.BUDGET_RELEASES
        else:
            assert isinstance(outcome, Recorded)
            assert not outcome.repeated
            self.replies[round_] = outcome.release.reply

    @rule(round_=ROUNDS)
    def refuse(self, round_: int) -> None:
        outcome = self.records.record(
            guarded(self.folder, round_), check=lambda _session: Refused.because(RefusalCode.POLICY_REVOKED)
        )
        assert isinstance(outcome, Recorded) == (round_ in self.replies)

    @rule(round_=ROUNDS)
    def fail_half_way(self, round_: int) -> None:
        def fail(_heads: object) -> bytes:
            raise StateError("half-way")

        try:
            outcome = self.records.record(guarded(self.folder, round_), make=fail, maximum=MAXIMUM)
        except StateError:
            assert round_ not in self.replies
        else:
            assert isinstance(outcome, Refused) or outcome.repeated

    @rule()
    def start_again(self) -> None:
        self.records.database.close()
        self.records = Records.open(self.folder)
        self.records.store.sweep()
        assert len(list((self.folder / "releases").iterdir())) == len(self.replies)

    @invariant()
    def everything_agrees(self) -> None:
        records = self.records
        assert {item.round: item.reply for item in records.store.list(ORDER)} == self.replies
        assert records.store.releases_used("cxr-finding") == len(self.replies)
        assert len(records.ledger.entries()) == len(self.replies)
        assert isinstance(verify(records.database), Permitted)
        assert isinstance(verify_ledger(records.database), Permitted)
        for round_ in self.replies:
            assert records.store.find(ORDER, round_, "train") is not None

    def teardown(self) -> None:
        self.records.database.close()
        shutil.rmtree(self.folder)


Releases.TestCase.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
TestReleases = Releases.TestCase
