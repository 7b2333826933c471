"""The station's own client of Flower's Fleet API: it carries instructions in and replies out, and runs nothing."""

from station.agent.blobs import BlobClient, blob_of
from station.agent.fleet import FleetConnection
from station.agent.interface import Connection, InstructionHandler, Pace
from station.agent.loop import Agent
from station.agent.messages import Answer, IncomingMessage

__all__ = [
    "Agent",
    "Answer",
    "BlobClient",
    "Connection",
    "FleetConnection",
    "IncomingMessage",
    "InstructionHandler",
    "Pace",
    "blob_of",
]
