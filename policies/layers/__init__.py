"""What a layer of an image may hold. Reads bytes as they pass, unpacks nothing, runs nothing."""

from policies.layers.ceilings import CEILINGS, Ceilings, LayerFault, LayerRefusedError
from policies.layers.packing import unpacked
from policies.layers.reader import LayerFinding, LayerReader, inspect_layer

__all__ = [
    "CEILINGS",
    "Ceilings",
    "LayerFault",
    "LayerFinding",
    "LayerReader",
    "LayerRefusedError",
    "inspect_layer",
    "unpacked",
]
