"""Stations, who you are, and whether the orchestrator is well."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.registry.access import Role
from policies.documents import format_moment

router = APIRouter(tags=["stations"])


class StationSummary(BaseModel):
    """A station of the board's register."""

    name: str
    organisation: str
    registered: bool
    """Whether its node key is known to the SuperLink."""
    last_seen: str | None
    """When it last proved its key to us, in a heartbeat or a signed request; at most 10 s older than the truth."""
    register_version: int
    """Of the board's register, as last followed."""


class Identity(BaseModel):
    """Who the orchestrator takes you for."""

    role: str
    name: str


class Health(BaseModel):
    """Whether the orchestrator answers; says nothing about runs."""

    name: str
    status: str
    version: str


@router.get("/stations", summary="The stations that take part")
def list_stations(asking: CallerOf, parts: ServicesOf) -> list[StationSummary]:
    """List the stations of the register."""
    require(asking, Role.RESEARCHER, Role.BOARD, Role.OPERATOR, Role.AUDITOR)
    return [
        StationSummary(
            name=view.name,
            organisation=view.organisation,
            registered=view.node_id is not None,
            last_seen=None if view.last_seen is None else format_moment(view.last_seen),
            register_version=view.register_version,
        )
        for view in parts.stations.all()
    ]


@router.get("/whoami", summary="Who your token or signature stands for")
def whoami(asking: CallerOf) -> Identity:
    """Say who asks."""
    return Identity(role=asking.principal.role, name=asking.principal.name)


@router.get("/health", summary="Whether the orchestrator answers")
def health(request: Request, parts: ServicesOf) -> Health:
    """Answer anyone."""
    return Health(name=parts.settings.front.name, status="ok", version=request.app.version)
