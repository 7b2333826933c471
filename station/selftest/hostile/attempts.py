"""What a probe writes down: each thing it tried, and what stopped it or what it got."""

import errno
import os
from collections.abc import Callable

MAX_ATTEMPTS = 200
MAX_TEXT = 200


class Attempts:
    """A probe's notes. Each attempt ends in exactly one of: stopped, got, not possible to try."""

    def __init__(self, tell: Callable[[dict[str, str]], None]) -> None:
        self._tell = tell
        self._left = MAX_ATTEMPTS

    def stopped(self, tried: str, by: str) -> None:
        """Note what stopped it."""
        self._note(tried, "stopped", by)

    def got(self, tried: str, what: str = "it worked") -> None:
        """Note what was got that must not be."""
        self._note(tried, "got", what)

    def skipped(self, tried: str, because: str) -> None:
        """Note why this cannot be tried here."""
        self._note(tried, "skipped", because)

    def _note(self, tried: str, how: str, text: str) -> None:
        if self._left:
            self._left -= 1
            self._tell({"tried": tried[:MAX_TEXT], "how": how, "what": text[:MAX_TEXT]})

    def call(self, tried: str, action: Callable[[], object]) -> None:
        """Try something that raises `OSError` where it is stopped; anything it returns, it got."""
        try:
            result = action()
        except OSError as error:
            self.stopped(tried, name_of(error.errno))
        else:
            self.got(tried, f"it worked ({result})" if result is not None else "it worked")

    def want(self, tried: str, *, held: bool, by: str, what: str) -> None:
        """Note an attempt whose outcome was looked at already."""
        if held:
            self.stopped(tried, by)
        else:
            self.got(tried, what)


def name_of(number: int | None) -> str:
    """Return an errno's name with its meaning."""
    if number is None:
        return "refused"
    return f"{errno.errorcode.get(number, str(number))} ({os.strerror(number)})"


def read_some(path: str, count: int = 64) -> bytes:
    """Return a file's first bytes; raises where it cannot, also for an empty one."""
    with open(path, "rb", buffering=0) as file:
        data = file.read(count)
    if not data:
        raise OSError(errno.ENODATA, "empty")
    return data


def write_some(path: str, text: str) -> None:
    """Write to a file that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
