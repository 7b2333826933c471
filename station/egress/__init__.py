"""The one door out: the contract, the guard, the ledger and the recorded releases.

Nothing is imported here: the researcher's dry run uses the guard without a database.
"""
