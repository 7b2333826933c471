"""How `pht-train watch` shows a run: a table that grows on a terminal, lines where a script or a log reads."""

from types import TracebackType
from typing import Protocol, Self

from rich.live import Live
from rich.table import Table

from policies.console import say
from policies.wire.registry_client import RunEvents
from train_images.tool.watching import COLUMNS, RoundRow, progress_line, round_row


class View(Protocol):
    """Whatever shows a run."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, whatever happened."""
        ...

    def show(self, news: RunEvents) -> None:
        """Show what is new."""
        ...


class PlainView:
    """One line per round and per change of state.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._said = ""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def show(self, news: RunEvents) -> None:
        """Write what is new."""
        if self._quiet:
            return
        for entry in news.events:
            say(round_row(entry).line())
        line = progress_line(news.progress)
        if line != self._said:
            say(line)
            self._said = line


class TableView:
    """A table that grows by a row per round, with the run's state under it."""

    def __init__(self) -> None:
        self._rows: list[RoundRow] = []
        self._live = Live(self._table(""), refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing."""
        self._live.stop()

    def show(self, news: RunEvents) -> None:
        """Draw what is new."""
        self._rows += [round_row(entry) for entry in news.events]
        self._live.update(self._table(progress_line(news.progress)), refresh=True)

    def _table(self, caption: str) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
        for column in COLUMNS:
            table.add_column(column, overflow="fold")
        for row in self._rows:
            table.add_row(*row.cells())
        return table
