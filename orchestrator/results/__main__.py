"""Writes one run's result: ``python -m orchestrator.results HOME ORDER_HEX``; started by the run worker."""

import os
import sys
import tempfile
from pathlib import Path

from orchestrator.logs import start_logging
from orchestrator.settings import Home
from policies.bundle import BlobFolder
from policies.errors import ExitCode, PhtError


def main() -> int:
    """Write it."""
    home, order_hex = Home(Path(sys.argv[1])), sys.argv[2]
    start_logging(home.logs, "results")
    with tempfile.TemporaryDirectory(prefix="pht-mpl-") as cache:
        # matplotlib writes a font cache to where this points; the service's own home folder is not asked for it.
        os.environ["MPLCONFIGDIR"] = cache
        from orchestrator.results.write import write_result  # noqa: PLC0415 - after the line above

        try:
            write_result(home.runs / order_hex, BlobFolder(home.blobs))
        except PhtError as error:
            sys.stderr.write(f"results: {error.message}\n")
            return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
