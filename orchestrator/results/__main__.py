"""Writes one run's result: ``python -m orchestrator.results HOME ORDER_HEX``; started by the run worker."""

import os
import sys
from pathlib import Path

from orchestrator.federation.orders import FolderQueue, RunFolder
from orchestrator.logs import start_logging
from orchestrator.registry.retention import forget_intermediate_weights
from orchestrator.settings import Home, database_location, load_settings
from orchestrator.storage import open_database
from policies.blobs import BlobFolder
from policies.errors import ExitCode, PhtError

_PATIENCE_S = 120.0


def main() -> int:
    """Write it."""
    home, order_hex = Home(Path(sys.argv[1])), sys.argv[2]
    start_logging(home.logs, "results")
    # matplotlib keeps a font cache, slow to make, where this points; no user's home folder is asked for it.
    os.environ["MPLCONFIGDIR"] = str(home.run / "matplotlib")
    from orchestrator.results.write import write_result  # noqa: PLC0415 - after the line above

    try:
        blobs = BlobFolder(home.blobs)
        write_result(home.runs / order_hex, blobs, home.notary_key)
        _tidy_up(home, order_hex, blobs)
    except PhtError as error:
        sys.stderr.write(f"results: {error.message}\n")
        return int(error.exit_code)
    return int(ExitCode.OK)


def _tidy_up(home: Home, order_hex: str, blobs: BlobFolder) -> None:
    queue = FolderQueue(home.runs)
    # What is to be kept is written already: this may wait for a database that is away.
    database = open_database(database_location(home, load_settings(home)), patience_s=_PATIENCE_S)
    try:
        forget_intermediate_weights(queue, RunFolder(home.runs / order_hex), database, blobs)
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
