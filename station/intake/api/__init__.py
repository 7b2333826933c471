"""Intake's local API (FastAPI) on a Unix socket."""

from station.intake.api.app import create_api

__all__ = ["create_api"]
