"""Migrations of the station's compute database."""
