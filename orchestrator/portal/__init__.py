"""The orchestrator's own HTTP API under /api/v1: parses, calls one use case, renders. The only place with FastAPI."""

from orchestrator.portal.app import create_app

__all__ = ["create_app"]
