"""The files of a result: which there may be, by name, and how large. The orchestrator writes them, the researcher's tool takes no others."""

from typing import Final

MODEL: Final = "model.safetensors"
NETWORK: Final = "network.json"
METRICS: Final = "metrics.json"
TABLE: Final = "metrics.csv"
PICTURE: Final = "metrics.png"
CARD: Final = "model-card.json"
CARD_PAGE: Final = "model-card.md"
SIGNED: Final = "provenance.dsse.json"
PROVENANCE: Final = "provenance.json"

RESULT_FILES: Final = (MODEL, NETWORK, METRICS, TABLE, PICTURE, CARD, CARD_PAGE, SIGNED, PROVENANCE)
"""What a result may hold; the provenance statement is written last and says that it is all there."""

_MAX_MODEL_BYTES: Final = 16 << 30
_MAX_DOCUMENT_BYTES: Final = 64 << 20


def most_bytes(name: str) -> int:
    """Return how large a file of a result may be.

    >>> most_bytes("model.safetensors") == 2**34, most_bytes("metrics.csv") == 2**26
    (True, True)
    """
    return _MAX_MODEL_BYTES if name == MODEL else _MAX_DOCUMENT_BYTES
