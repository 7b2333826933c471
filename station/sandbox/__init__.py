"""Runs a train's image under every restriction of the station, and talks to it."""
