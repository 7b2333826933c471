"""How `pht-train watch` shows a run: a table that grows on a terminal, lines where a script or a log reads."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from policies.console import say, visible
from policies.errors import NetworkError
from policies.wire.registry_client import RunEvents
from train_images.tool.watching import (
    RoundNews,
    progress_line,
    round_lines,
    round_news,
    table_columns,
    table_rows,
    taking_part,
)

ROUNDS_DRAWN = 8
"""The newest rounds that the table on a terminal shows; lines show all."""


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

    def silence(self, error: NetworkError) -> None:
        """Show that the orchestrator does not answer, and is asked again."""
        ...


class PlainView:
    """A few lines per round, and one per change of state.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        # A state comes back when a stage begins again; said once is enough.
        self._said: set[str] = set()
        self._silent = False

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
        lines = [line for entry in news.events for line in round_lines(round_news(entry))]
        for line in (*lines, taking_part(news.progress), progress_line(news.progress)):
            if line and line not in self._said:
                say(line)
                self._said.add(line)
        self._silent = False

    def silence(self, error: NetworkError) -> None:
        """Write once that it does not answer, until it does again."""
        if not self._quiet and not self._silent:
            say(_no_answer(error))
        self._silent = True


class TableView:
    """A table that grows with every round, with the run's state under it."""

    def __init__(self) -> None:
        self._rounds: list[RoundNews] = []
        self._caption = ""
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
        self._rounds += [round_news(entry) for entry in news.events]
        self._caption = "\n".join(filter(None, (taking_part(news.progress), progress_line(news.progress))))
        self._live.update(self._table(self._caption), refresh=True)

    def silence(self, error: NetworkError) -> None:
        """Draw that it does not answer under what is known."""
        self._live.update(self._table(f"{self._caption}\n{_no_answer(error)}".strip()), refresh=True)

    def _table(self, caption: str) -> Group:
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            caption=Text(visible(caption)),
            caption_justify="left",
        )
        # A picture higher than the terminal is cut off below, where the news is.
        shown = self._rounds[-ROUNDS_DRAWN:]
        for column in table_columns(shown) if shown else ():
            table.add_column(column, overflow="fold")
        for row in table_rows(shown):
            table.add_row(*(Text(visible(cell)) for cell in row))
        # A table without columns draws nothing, nor would its caption.
        return Group(*([table] if shown else []), Text(visible(caption)))


def _no_answer(error: NetworkError) -> str:
    return f"{error.message}; the run goes on, and it is asked again"
