"""GPUs for trains: which there are, who holds which, and that nothing of one train is left on them for the next."""
