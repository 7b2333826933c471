"""Flower's side of a study: hospitals are folders, and a `ClientApp` is called for each of them in this process.

`Grid` is what Flower's strategies speak to, so that the strategies here are Flower's own and the `ClientApp` is the train's own,
message by message. No network, no sandbox and no guard: what those add is tested where they are.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flower_strategies import in_a_run
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

NUM_EXAMPLES = "num-examples"


class FolderGrid(Grid):
    """Hospitals by their numbers, from 1.

    Args:
        app: called for every message.
        folders: each hospital's cohort.
        examples: by which each hospital counts in a mean.
    """

    def __init__(self, app: ClientApp, folders: Mapping[int, Path], examples: Mapping[int, int]) -> None:
        self._app, self._folders, self._examples = app, dict(folders), dict(examples)
        in_a_run()

    def set_run(self, run: Any) -> None:
        """There is one run."""

    @property
    def run(self) -> Any:
        """Refused: there is one run, of which nothing is known."""
        raise NotImplementedError("a study in one process has no run's record")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message as a strategy makes one."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return every hospital."""
        return list(self._folders)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: nothing here answers later."""
        raise NotImplementedError("hospitals in this process answer at once: send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused: nothing here answers later."""
        raise NotImplementedError("hospitals in this process answer at once: send_and_receive")

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Iterable[Message]:
        """Return each hospital's answer, with its own count of examples beside its metrics."""
        # A strategy draws them in any order; sums of floats are the same in one order alone.
        return [self._answer(each) for each in sorted(messages, key=lambda each: each.metadata.dst_node_id)]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
        with cohort(self._folders[node]):
            reply = self._app(message, context)
        metrics = reply.content.metric_records.get("metrics", MetricRecord())
        reply.content["metrics"] = MetricRecord({**metrics, NUM_EXAMPLES: self._examples[node]})
        return reply


@contextmanager
def cohort(folder: Path) -> Iterator[None]:
    """Make a folder the cohort, as a station mounts it."""
    before = os.environ.get("PHT_DATA")
    os.environ["PHT_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PHT_DATA"]
        else:
            os.environ["PHT_DATA"] = before
