"""Differential privacy at the station: noise, what it costs each patient, and the ledger of what was spent."""
