"""``python -m pht_runtime``: serve the train that ``/opt/pht/train.json`` names, until the station says finish."""

import os
import sys

# Flower must not look for a network that is not there. Set before anything imports it.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from .loop import main

if __name__ == "__main__":
    sys.exit(main())
