"""A station's records against what was countersigned of them: statements out, receipts in, and the way back after a restore."""

from station.continuity.records import Records
from station.continuity.tables import ContinuityRow, RestoredOrderRow, StatementRow

__all__ = ["ContinuityRow", "Records", "RestoredOrderRow", "StatementRow"]
