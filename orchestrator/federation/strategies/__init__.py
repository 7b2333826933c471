"""How updates become the next weights, and how tables are pooled: see README.md."""

from orchestrator.federation.strategies.state import StateFiles, StrategyStateError
from orchestrator.federation.strategies.strategy import Strategy, make_strategy
from orchestrator.federation.strategies.update import NotFiniteError, TooFewUpdatesError, Update

__all__ = [
    "NotFiniteError",
    "StateFiles",
    "Strategy",
    "StrategyStateError",
    "TooFewUpdatesError",
    "Update",
    "make_strategy",
]
