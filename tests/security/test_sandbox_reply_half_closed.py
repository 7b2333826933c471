"""Attack: a train that says it will never say anything, and listens on."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass

pytestmark = pytest.mark.docker


def test_who_will_not_answer_is_not_waited_for(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        failure = train.ask("half-closed").failure
        assert failure.exit_class in {ExitClass.PROTOCOL, ExitClass.CRASH}
        assert failure.session_ended
