"""The station's embedded database and how it writes files."""

from station.storage.database import Database, open_database
from station.storage.files import remove_durably, write_atomically
from station.storage.schema import Base, UtcTime

__all__ = ["Base", "Database", "UtcTime", "open_database", "remove_durably", "write_atomically"]
