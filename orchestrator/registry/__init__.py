"""What the orchestrator keeps for others: blobs and bundles, the mirror of the board's repository, orders, stations."""
