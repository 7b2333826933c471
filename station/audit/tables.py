"""The audit table."""

from station.audit.chain import ChainedRow


class AuditRow(ChainedRow):
    """One event; written by `station.audit.log` only."""

    __tablename__ = "audit_events"
