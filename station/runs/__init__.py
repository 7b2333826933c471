"""The life of a run order at one station: its states, its record."""

from station.runs.repository import NewOrder, Run, RunRepository
from station.runs.states import TERMINAL, Decision, RunEvent, RunState, next_state

__all__ = [
    "TERMINAL",
    "Decision",
    "NewOrder",
    "Run",
    "RunEvent",
    "RunRepository",
    "RunState",
    "next_state",
]
