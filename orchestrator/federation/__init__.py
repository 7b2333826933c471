"""Drives accepted orders through Flower: the SuperLink, the run worker, the ServerApp and its rounds."""
