"""Every attack on the policy repository, in front of a whole station: the code is the attack's own, and nothing runs.

No container, no cohort, no release, no order on record; an audit entry that names the code; and a run that was under way
before gets no further message.
"""

import importlib
import shutil
from pathlib import Path

import pytest
from attack_kit import Attack, besiege
from station_kit import STATIONS, StationKit

from policies.refusals import RefusalCode
from policies.wire.instructions import Status

MODULES = [
    importlib.import_module(path.stem)
    for path in sorted(Path(__file__).parent.glob("test_attack_*.py"))
    if path.stem != Path(__file__).stem
]
ATTACKS: dict[str, tuple[Attack, RefusalCode]] = {
    f"{module.__name__.removeprefix('test_attack_')}-{name}": (attack, module.CODE)
    for module in MODULES
    for name, attack in getattr(module, "ATTACKS", {}).items()
}
ONE_PER_CODE = {code: (name, attack) for name, (attack, code) in reversed(ATTACKS.items())}


def besieged(folder: Path) -> StationKit:
    """A station whose board has published twice, as in a `Siege`; the attacker kept the first state."""
    kit = StationKit.make(folder)
    board = kit.board
    for path in board.repository.metadata.iterdir():
        if not path.name.endswith(".root.json"):
            path.unlink()
    shutil.rmtree(board.repository.targets)
    shutil.rmtree(board.repository.folder / "witness")
    board.repository.set_register(board.signed_register(2, *STATIONS))
    board.repository.set_purposes(board.signed_purposes(2))
    board.publish(board.signed(kit.policy))
    besiege(board)
    return kit


def assert_nothing_runs(kit: StationKit, code: RefusalCode) -> None:
    envelope = kit.order()
    before = (len(kit.sandbox.started), len(kit.runs.list()), sorted(kit.paths.cohorts.iterdir()))
    reply = kit.prepare(envelope)
    assert (reply.status, reply.code) == (Status.REFUSED, code)
    assert kit.message(envelope)[0].status is Status.REFUSED
    assert (len(kit.sandbox.started), len(kit.runs.list()), sorted(kit.paths.cohorts.iterdir())) == before
    assert kit.releases.list() == []
    assert any(code in item.record.codes for item in kit.audit.events(limit=1000))


@pytest.mark.parametrize("code", ONE_PER_CODE)
def test_a_station_runs_nothing(tmp_path: Path, code: RefusalCode) -> None:
    kit = besieged(tmp_path)
    assert kit.gatekeeper.policy_set(fresh=True)
    kit.clock.now = ONE_PER_CODE[code][1](kit.board)
    assert_nothing_runs(kit, code)
    kit.close()


@pytest.mark.parametrize(
    "name", ["rollback_timestamp-older-timestamp", "rotated_member_key-policy-of-before"]
)
def test_a_run_under_way_gets_no_further_message(tmp_path: Path, name: str) -> None:
    attack, code = ATTACKS[name]
    kit = besieged(tmp_path)
    envelope = kit.ready()
    kit.clock.now = attack(kit.board)
    reply, arrays = kit.message(envelope)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, code, None)
    assert kit.sandbox.asked == []
    assert_nothing_runs(kit, code)
    kit.close()


def test_every_code_that_a_mirror_or_a_stolen_key_can_cause_is_tried() -> None:
    codes = {code for code in RefusalCode if code.startswith(("TRUST_", "POLICY_SIGN", "POLICY_OTHER"))}
    # Unreachable is no lie: what was verified last counts, and only a station that never saw anything says so.
    assert codes - {RefusalCode.TRUST_UNREACHABLE} <= ONE_PER_CODE.keys()
