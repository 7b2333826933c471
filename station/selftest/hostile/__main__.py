"""``python -m pht_runtime``: greet the station, then try what each request names, until the station ends it."""

import sys

from .train import main

if __name__ == "__main__":
    sys.exit(main())
