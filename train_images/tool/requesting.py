"""A request to the board, written from a packed train."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from policies.board.documents.documents_in import read_file
from policies.errors import DocumentError, UsageError
from policies.policy import PurposeCode, RequesterClass
from policies.train_request import MAX_REQUEST_BYTES, read_request, verify_request

if TYPE_CHECKING:
    from train_images.tool.folders import PackedTrain

PLACEHOLDER = "REPLACE"


def draft(train: "PackedTrain", key: str, collections: tuple[str, ...], stations: tuple[str, ...]) -> bytes:
    """Return request.yaml for a packed train.

    Args:
        train: the train.
        key: the requester's public key, hex.
        collections: which collections are asked for.
        stations: which hospitals; none is whichever have the collections.
    """
    manifest, contact = train.manifest, train.manifest.contact
    document = {
        "schema_version": 1,
        "train": {
            "name": manifest.name,
            "version": manifest.version,
            "manifest_digest": train.index.manifest.digest,
        },
        "purpose": {
            "code": f"{PLACEHOLDER}: {', '.join(PurposeCode)}",
            "statement": f"{PLACEHOLDER}: what you want to find out, so that a patient understands it",
            "benefit": f"{PLACEHOLDER}: for whom that is good",
        },
        "requester": {
            "organisation": contact.organisation,
            "contact": f"{contact.name} <{contact.email}>",
            "requester_class": f"{PLACEHOLDER}: {', '.join(RequesterClass)}",
            "country": f"{PLACEHOLDER}: two letters",
            "key": key,
        },
        "collections": list(collections),
        "stations": list(stations),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100).encode()


def checked(path: Path) -> bytes:
    """Return a request's bytes, once they are one.

    Raises:
        DocumentError: it is none, too large, or not filled in; names the key and the line.
    """
    data = read_file(path)
    if len(data) > MAX_REQUEST_BYTES:
        raise DocumentError(f"{path.name}: {len(data)} bytes; a request has at most {MAX_REQUEST_BYTES}")
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if f"{PLACEHOLDER}:" in line:
            raise DocumentError(f"{path.name}, line {number}: still says {PLACEHOLDER}", hint="Fill it in.")
    read_request(data, what=path.name)
    return data


def signed_already(path: Path) -> bytes:
    """Return the bytes of a request that `request sign` wrote.

    Raises:
        UsageError: it is not signed.
        TrustError, DocumentError: its signature does not hold, or it is no request.
    """
    data = read_file(path)
    if not data.lstrip().startswith(b"{"):
        raise UsageError(
            f"{path.name}: the request is not signed", hint="Give --key: the key that the request names."
        )
    verify_request(data)
    return data
