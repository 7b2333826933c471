"""The station's own client of Flower's Fleet API: it carries instructions in and replies out, and runs nothing."""

from station.agent.blobs import BlobClient
from station.agent.fleet import FleetConnection, IncomingMessage
from station.agent.loop import Agent, InstructionHandler, Pace

__all__ = ["Agent", "BlobClient", "FleetConnection", "IncomingMessage", "InstructionHandler", "Pace"]
