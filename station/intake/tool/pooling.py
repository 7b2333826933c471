"""Worker processes that may die of a file, and the answers in the order of the questions.

Files go to the workers in small parcels. When a process dies, the parcels that were out are done again one file at a time
in a process of its own each; the file that kills that one too is named, and the rest goes on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from station.intake.tool import working
from station.intake.tool.request import ToolRequest
from station.intake.tool.source_files import SourceFile
from station.pseudonymisation.keys import PseudonymKey

_Answer = TypeVar("_Answer")
PARCEL = 8
_AHEAD = 3


class Pool:
    """Worker processes for one request; a context manager would hide that they come and go: call `close`."""

    def __init__(self, request: ToolRequest, key: PseudonymKey, unfinished: Path) -> None:
        self._setup = (request, key, unfinished)
        self._jobs = max(1, request.jobs)
        self._executor = self._new(self._jobs)

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        task: Callable[[list[SourceFile]], list[_Answer]],
        sources: Iterable[SourceFile],
        died: Callable[[SourceFile], _Answer],
    ) -> Iterator[_Answer]:
        """Answer for each source, in order.

        Args:
            task: a function of `working`, for a parcel of files.
            sources: read no further ahead than the workers need.
            died: the answer for a file that kills its process.
        """
        waiting = iter(sources)
        out: deque[tuple[list[SourceFile], Future[list[_Answer]]]] = deque()
        while True:
            while len(out) < self._jobs * _AHEAD and (parcel := list(islice(waiting, PARCEL))):
                out.append((parcel, self._submit(task, parcel)))
            if not out:
                return
            parcel, future = out.popleft()
            try:
                answers = future.result()
            except BrokenProcessPool:
                stranded = [parcel, *(other for other, _ in out)]
                out.clear()
                self._executor.shutdown(wait=True, cancel_futures=True)
                for lost in stranded:
                    for source in lost:
                        yield self._alone(task, source, died)
                self._executor = self._new(self._jobs)
                continue
            yield from answers

    def _submit(
        self, task: Callable[[list[SourceFile]], list[_Answer]], parcel: list[SourceFile]
    ) -> "Future[list[_Answer]]":
        try:
            return self._executor.submit(task, parcel)
        except BrokenProcessPool as error:
            broken: Future[list[_Answer]] = Future()
            broken.set_exception(error)
            return broken

    def _alone(
        self,
        task: Callable[[list[SourceFile]], list[_Answer]],
        source: SourceFile,
        died: Callable[[SourceFile], _Answer],
    ) -> _Answer:
        with self._new(1) as single:
            try:
                return single.submit(task, [source]).result()[0]
            except BrokenProcessPool:
                return died(source)

    def _new(self, jobs: int) -> ProcessPoolExecutor:
        # Fresh processes, not forks of one that may have threads and open files.
        return ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=working.begin, initargs=self._setup
        )
