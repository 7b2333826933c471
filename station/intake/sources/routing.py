"""Who may send what where: feeds of the settings, and the PACS for as long as something was asked of it by C-MOVE."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from policies.errors import StateError
from station.intake.sources.reception import Route
from station.intake.spool import SourceKind
from station.settings.dicom import Feed


class Routing:
    """The receiver's routes. Threads may share it."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = {
            (calling, called): Route(collection, SourceKind.C_STORE) for calling, called, collection in feeds
        }
        self._expected: dict[tuple[str, str], Route] = {}
        self._lock = threading.Lock()

    def route(self, calling: str, called: str) -> Route | None:
        """Return where it belongs; None refuses the association."""
        with self._lock:
            return self._feeds.get((calling, called)) or self._expected.get((calling, called))

    def knows(self, calling: str) -> bool:
        """Tell whether anything may come from this AE title."""
        with self._lock:
            return any(calling == known for known, _ in (*self._feeds, *self._expected))

    @contextmanager
    def expecting(self, calling: str, called: str, route: Route) -> Iterator[None]:
        """Let a PACS send to a C-MOVE destination, as long as the context lasts.

        Raises:
            StateError: something is expected from there already.
        """
        with self._lock:
            if (calling, called) in self._expected:
                raise StateError("two retrievals at once have the same C-MOVE destination")
            self._expected[calling, called] = route
        try:
            yield
        finally:
            with self._lock:
                del self._expected[calling, called]
