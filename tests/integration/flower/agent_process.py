"""One station's agent in a process of its own, for tests that kill it: a plain handler whose records are on disk.

Usage: agent_process.py URL CA KEY STATE NUMBER EXAMPLES
"""

import json
import signal
import sys
import threading
from pathlib import Path

from flower_federation import PACE, PlainStation

from policies.wire.instructions import Instruction, Kind, StationReply, decode_reply, encode
from station.agent import Agent, FleetConnection


class RecordingStation(PlainStation):
    """Records what it releases before it answers, and waits in round 2 until a file says go."""

    def __init__(self, state: Path, number: int, examples: int) -> None:
        super().__init__(number, examples)
        self.state = state

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        with (self.state / "seen.jsonl").open("a") as file:
            file.write(json.dumps([instruction.kind.value, instruction.round, instruction.attempt]) + "\n")
        if instruction.kind is Kind.TRAIN and instruction.round == 2 and not (self.state / "go").exists():
            (self.state / "waiting").touch()
            threading.Event().wait()
        stored = self.state / f"{instruction.order_digest[7:19]}-{instruction.kind.value}-{instruction.round}"
        if stored.exists():
            reply = decode_reply(stored.read_bytes()).model_copy(update={"attempt": instruction.attempt})
            release = stored.with_suffix(".arrays")
            return reply, release.read_bytes() if release.exists() else None
        reply, out = super().handle(instruction, arrays)
        if out is not None:
            stored.with_suffix(".arrays").write_bytes(out)
        stored.write_bytes(encode(reply))
        return reply, out


def main() -> None:
    url, ca, key, state, number, examples = sys.argv[1:]
    folder = Path(state)
    folder.mkdir(parents=True, exist_ok=True)
    handler = RecordingStation(folder, int(number), int(examples))
    agent = Agent(FleetConnection(url, Path(ca), Path(key)), handler, folder / "agent", PACE)
    agent.start()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()
    agent.stop(3.0)


if __name__ == "__main__":
    main()
