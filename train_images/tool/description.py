"""What an image says it is: ``/opt/pht/train.json``, read out of a bundle's layers without running anything."""

import json
import tarfile
from typing import Final

from pydantic import JsonValue

from policies.blobs import Blob
from policies.errors import DocumentError
from train_images.tool.folders import PackedTrain

DESCRIPTION: Final = "opt/pht/train.json"
INITIAL_WEIGHTS: Final = "initial_weights"
"""Its key that names, as ``module:function``, what makes the initial weights."""

_MAX_BYTES: Final = 64 * 1024


def read_description(train: PackedTrain) -> dict[str, JsonValue]:
    """Return the description in the highest layer that has one.

    Raises:
        DocumentError: no layer has one, or it is no JSON object.
    """
    found = read_json_in_image(train, DESCRIPTION)
    if found is not None:
        return found
    raise DocumentError(
        f"the image has no /{DESCRIPTION}",
        hint='Write one in the Dockerfile, such as {"interface": "flower", "clientapp": "my_train:app"}.',
    )


def read_json_in_image(train: PackedTrain, name: str) -> dict[str, JsonValue] | None:
    """Return a small JSON object of the image, from the highest layer that has it; None where none has.

    Args:
        train: packed.
        name: the file's path, without the first slash.

    Raises:
        DocumentError: it is no JSON object, or not a small one.
    """
    for layer in reversed(train.index.layers):
        found = _in_layer(train, layer, name)
        if found is not None:
            return found
    return None


def require_interface(train: PackedTrain) -> dict[str, JsonValue]:
    """Return the description, once it names the manifest's interface.

    Raises:
        DocumentError: it does not.
    """
    description = read_description(train)
    wanted = train.manifest.interface.value
    if description.get("interface") != wanted:
        raise DocumentError(
            f"train.yaml says interface {train.manifest.interface}, the image's /{DESCRIPTION} does not say "
            f"{wanted}",
            hint="A station would end such a train at its hello: correct one of the two.",
        )
    return description


def _in_layer(train: PackedTrain, layer: Blob, name: str) -> dict[str, JsonValue] | None:
    try:
        with train.store.open(layer.digest) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.name.removeprefix("./").lstrip("/") != name or not member.isreg():
                    continue
                source = tar.extractfile(member)
                if source is None or member.size > _MAX_BYTES:
                    break
                value: JsonValue = json.loads(source.read())
                if isinstance(value, dict):
                    return value
                break
            else:
                return None
    except (tarfile.TarError, ValueError) as error:
        raise DocumentError(f"the image's /{name} cannot be read") from error
    raise DocumentError(f"the image's /{name} is no small JSON object")
