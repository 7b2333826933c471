"""Logs as JSON lines: constant event names and allow-listed fields, nothing else.

A field that is not on the list is not written, whatever a caller passes: a log line never carries a patient's value,
a path to an image, an environment, a payload or a train's output. What foreign libraries say is reduced to where they said
it, for they quote values; so are warnings, and faults that nobody caught.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

from policies.errors import PhtError

FIELDS = frozenset(
    {
        "attempt", "batch", "code", "count", "event_seq", "exit_code", "kind", "node_id", "order", "pid", "policy",
        "reason", "restarts", "round", "run_id", "sequence", "service", "state", "status", "verb", "version",
    }
)  # fmt: skip
OURS = ("station", "policies", "__main__")
_LONGEST = 300


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time, level, logger, event, and the fields on the list."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:_LONGEST],
        }
        if record.name.partition(".")[0] not in OURS:
            line |= {"event": "library.message", "at": f"{record.module}:{record.lineno}"}
        for field in sorted(FIELDS & record.__dict__.keys()):
            value = record.__dict__[field]
            line[field] = value if isinstance(value, int | float) else str(value)[:_LONGEST]
        if record.exc_info and record.exc_info[0] is not None:
            # The type and place of a fault, never its text: that may quote data.
            line["fault"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is not None:
                line["at"] = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
        return json.dumps(line, ensure_ascii=False)


def log_as_json_lines() -> None:
    """Send this process's logs to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    # Foreign libraries log requests and payload sizes: warnings only.
    for name in ("flwr", "httpx", "httpcore", "urllib3", "uvicorn", "docker", "alembic", "tuf", "pydicom"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    if isinstance(error, PhtError):
        # Our own texts quote nobody.
        logging.getLogger("station").critical("process.fault", extra={"reason": error.message})
        return
    logging.getLogger("station").critical("process.bug", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
