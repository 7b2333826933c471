"""Pseudonymising a folder or a zip into a folder, without a station: no database, no service, no collection."""
