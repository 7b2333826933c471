"""Are the files of a pack those that its statement and its description name?"""

import hashlib
from collections.abc import Iterator, Mapping

from policies.documents import parse_json
from policies.errors import DocumentError
from policies.evidence.archive import CRATE, MAX_MEMBER_BYTES, STATEMENT, Pack, PackDamageError


def check_files(pack: Pack, claimed: Mapping[str, str]) -> str:
    """Hold each file against the digests that the station's statement and the crate's description give it.

    Args:
        pack: untrusted.
        claimed: the statement's digests, by file; whether the station said so is another step's question.

    Returns:
        What was found, in words.

    Raises:
        PackDamageError: naming the first file that differs, is missing, or is nobody's.
    """
    for name in pack.names:
        if name == STATEMENT:
            continue
        if name not in claimed:
            raise PackDamageError(name, "the station's statement names no such file")
        if _digest(pack, name) != claimed[name]:
            raise PackDamageError(name, "has another digest than the station's statement gives it")
    if missing := claimed.keys() - set(pack.names):
        raise PackDamageError(min(missing), "is missing")
    described = dict(_described(pack.read(CRATE)))
    for name in sorted(set(pack.names) - {CRATE}):
        if name not in described:
            raise PackDamageError(CRATE, f"does not describe {name}")
        if name != STATEMENT and described[name] != claimed[name].removeprefix("sha256:"):
            raise PackDamageError(CRATE, f"gives {name} another digest")
    if extra := described.keys() - set(pack.names):
        raise PackDamageError(CRATE, f"describes {min(extra)}, which is not there")
    return f"{len(claimed)} files have the digests that the description and the statement give them"


def _digest(pack: Pack, name: str) -> str:
    found = hashlib.sha256()
    with pack.open(name) as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return f"sha256:{found.hexdigest()}"


def _described(data: bytes) -> Iterator[tuple[str, str | None]]:
    try:
        graph = parse_json(data, what=CRATE, max_bytes=MAX_MEMBER_BYTES)["@graph"]
        for entity in graph:
            if entity.get("@type") == "File":
                yield str(entity["@id"]), entity.get("sha256")
    except (DocumentError, KeyError, TypeError, AttributeError) as error:
        raise PackDamageError(CRATE, "is not the description of a crate") from error
