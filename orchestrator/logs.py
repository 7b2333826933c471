"""Logging as JSON lines: constant event names, allow-listed fields, never a payload.

Python's own `logging` is the interface; a record's message is its event name. Fields outside `FIELDS` are dropped, and
so is the text of an exception: its type and place are kept.
"""

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path

FIELDS = frozenset(
    {
        "attempt",
        "child",
        "code",
        "exit_status",
        "host",
        "kind",
        "order",
        "pid",
        "port",
        "register_version",
        "round",
        "route",
        "station",
        "wait_s",
    }
)
_MAX_BYTES = 20 << 20
_KEPT_FILES = 5


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        ours = record.name.partition(".")[0] in {"orchestrator", "policies", "__main__"}
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            # A foreign library's message is text that may quote what it handled.
            "event": record.msg if ours and isinstance(record.msg, str) else "foreign",
        }
        entry |= {key: value for key, value in record.__dict__.items() if key in FIELDS}
        if record.exc_info and record.exc_info[0] is not None:
            entry["kind"] = record.exc_info[0].__name__
        return json.dumps(entry, ensure_ascii=False, default=str)


def start_logging(folder: Path, process: str) -> None:
    """Send this process's log to ``<folder>/<process>.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / f"{process}.jsonl", maxBytes=_MAX_BYTES, backupCount=_KEPT_FILES, encoding="utf-8"
    )
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("httpx", "httpcore", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
