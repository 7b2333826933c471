"""What of exact tables may be told, so that nothing of few patients follows from it."""

from station.egress.suppression.hiding import hide
from station.egress.suppression.rules import Hidden, HidingRules

__all__ = ["Hidden", "HidingRules", "hide"]
