"""Backups of a home, and homes from backups."""

from orchestrator.backup.documents import BackupManifest, BlobsIn, KeysIn, RestoredNote, read_note
from orchestrator.backup.restoring import RestoreOptions, restore_backup
from orchestrator.backup.taking import BackupOptions, take_backup

__all__ = [
    "BackupManifest",
    "BackupOptions",
    "BlobsIn",
    "KeysIn",
    "RestoreOptions",
    "RestoredNote",
    "read_note",
    "restore_backup",
    "take_backup",
]
