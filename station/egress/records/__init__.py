"""What the station keeps of what left: the egress ledger, the calls without a message, the recorded releases."""
