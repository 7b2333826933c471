"""The process of one order's ServerApp, as the run worker starts it."""

import sys

from orchestrator.federation.server_app import run_process

sys.exit(run_process())
