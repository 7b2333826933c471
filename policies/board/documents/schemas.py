"""JSON Schemas of all documents, generated from their models and kept beside them for editors and for other languages."""

import json
from importlib.resources import files
from pathlib import Path

from policies.charter import Charter, StationRegister
from policies.decisions import Decisions
from policies.documents import StrictModel
from policies.errors import StorageError
from policies.files import write_atomically
from policies.manifest import TrainManifest
from policies.opinions import Opinion
from policies.order import RunOrder
from policies.policy import Policy
from policies.profiles import Profile
from policies.purposes import PurposeTable
from policies.station_heads import StationHeads
from policies.station_profile import StationProfile
from policies.station_statement import StationStatement
from policies.train_request import TrainRequest
from policies.trust.revocations import RevocationList

DOCUMENTS: dict[str, type[StrictModel]] = {
    "train-manifest": TrainManifest,
    "policy": Policy,
    "run-order": RunOrder,
    "charter": Charter,
    "station-register": StationRegister,
    "station-profile": StationProfile,
    "revocations": RevocationList,
    "purpose-table": PurposeTable,
    "opinion": Opinion,
    "decisions": Decisions,
    "minimal-dataset-profile": Profile,
    "station-statement": StationStatement,
    "station-heads": StationHeads,
    "train-request": TrainRequest,
}


def schema_folder() -> Path:
    """Return where the generated schemas lie.

    Raises:
        StorageError: the package is not in a folder (a zip, say).
    """
    folder = files("policies").joinpath("schemas")
    if not isinstance(folder, Path):
        raise StorageError("the package does not lie in a folder")
    return folder


def schema_text(name: str) -> bytes:
    """Return the JSON Schema of one document."""
    schema = DOCUMENTS[name].model_json_schema(by_alias=True)
    body = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pht:schema:{name}",
        **schema,
    }
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_schemas(folder: Path) -> list[str]:
    """Write all schemas and return the names of those that changed."""
    changed = []
    for name in DOCUMENTS:
        path, text = folder / f"{name}.json", schema_text(name)
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)
            changed.append(path.name)
    return changed
