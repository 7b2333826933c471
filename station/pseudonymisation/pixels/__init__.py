"""Burned-in text and recognizable faces: found, masked, or left to a person."""

from station.pseudonymisation.pixels.boxes import Box
from station.pseudonymisation.pixels.inspector import PixelFinding, PixelInspector
from station.pseudonymisation.pixels.settings import PixelSettings

__all__ = ["Box", "PixelFinding", "PixelInspector", "PixelSettings"]
