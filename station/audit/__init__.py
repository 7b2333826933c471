"""The station's audit: typed, append-only, hash-chained."""

from station.audit.chain import ChainBreak, ChainHead
from station.audit.events import Actor, AuditEvent, AuditRecord, Outcome
from station.audit.export import export, verify_export
from station.audit.heads import SignedHead, open_head, sign_head
from station.audit.log import AuditLog, verify

__all__ = [
    "Actor",
    "AuditEvent",
    "AuditLog",
    "AuditRecord",
    "ChainBreak",
    "ChainHead",
    "Outcome",
    "SignedHead",
    "export",
    "open_head",
    "sign_head",
    "verify",
    "verify_export",
]
