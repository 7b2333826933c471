"""Which weights an order uses, without reading its documents again while they are the same.

Asked for every blob that a station fetches, and for every order that is here: with a hundred stations in each, a thousand old
orders take seconds to parse.
"""

import threading
from collections import OrderedDict
from pathlib import Path

from orchestrator.federation.orders import RunFolder, weights_of

_MAX_KNOWN = 20_000

_Mark = tuple[tuple[int, int, int], ...]

_known: "OrderedDict[Path, tuple[_Mark, frozenset[str]]]" = OrderedDict()
_lock = threading.Lock()


def weights_in(folder: RunFolder) -> frozenset[str]:
    """Digests of the weights that an order's stations may fetch: `weights_of`, read anew only once a file was replaced.

    Raises:
        StateError: the order is missing or damaged.
    """
    mark = tuple(_look(folder.path / name) for name in ("order.json", "checkpoint.json"))
    with _lock:
        known = _known.get(folder.path)
    if known is not None and known[0] == mark:
        return known[1]
    # The mark was taken before: what changes meanwhile is read at the next call.
    found = weights_of(folder, folder.read_order())
    with _lock:
        _known[folder.path] = (mark, found)
        _known.move_to_end(folder.path)
        if len(_known) > _MAX_KNOWN:
            _known.popitem(last=False)
    return found


def _look(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    # Every document is replaced as a whole: another one is another inode.
    return (status.st_ino, status.st_mtime_ns, status.st_size)
