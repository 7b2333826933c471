"""Bringing the repository to a mirror: a folder that a web server serves, or the orchestrator's mirror API.

A mirror is not trusted; it only has to be complete. So what is there already is compared, what differs is sent, and
the order lets a reader in the middle see the state before or the state after: targets, roots, targets metadata,
snapshot, timestamp.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from policies.errors import NetworkError, NotFoundError, TrustError
from policies.files import write_atomically
from policies.trust.fetch import https_client, mirror_url
from policies.trust.listing import hashed
from policies.trust.metadata import read_metadata, versions

if TYPE_CHECKING:
    import httpx

_OK = 200
_UNAUTHORISED = {401, 403}


def push(
    folder: Path, to: str | Path, *, token: str | None = None, ca: Path | None = None
) -> tuple[str, ...]:
    """Send what a mirror lacks of the newest published state.

    Args:
        folder: the repository.
        to: the mirror's https address, or a folder.
        token: the bearer token that the mirror asks of writers.
        ca: PEM of the authority behind the mirror's certificate.

    Returns:
        The paths that were sent.

    Raises:
        TrustError: the mirror does not accept the token.
        NetworkError: the mirror does not answer, or not as it should.
    """
    paths = published_files(folder)
    if isinstance(to, Path):
        return _push_to_folder(folder, to, paths)
    with _writer(to, token, ca) as (client, base):
        return tuple(path for path in paths if _put(client, f"{base}/{path}", folder / path))


def push_timestamp(folder: Path, to: str | Path, *, token: str | None = None, ca: Path | None = None) -> None:
    """Send the witness's newest word, and nothing else: all that its token is good for.

    Raises:
        TrustError: the mirror does not accept the token.
        NetworkError: the mirror does not answer, or lacks the snapshot that the timestamp vouches for.
    """
    if isinstance(to, Path):
        push(folder, to)
        return
    *others, timestamp = [path for path in published_files(folder) if path.startswith("metadata/")]
    with _writer(to, token, ca) as (client, base):
        for path in others:
            present = client.get(f"{base}/{path}")
            if present.status_code != _OK or present.content != (folder / path).read_bytes():
                raise NetworkError(
                    f"the mirror lacks {path}",
                    hint="The secretary brings it there: `pht-board publish --to`.",
                )
        _put(client, f"{base}/{timestamp}", folder / timestamp)


@contextmanager
def _writer(to: str, token: str | None, ca: Path | None) -> "Iterator[tuple[httpx.Client, str]]":
    import httpx  # noqa: PLC0415 - a program that only reads folders starts faster

    base = mirror_url(to)
    try:
        with https_client(ca, token) as client:
            yield client, base
    except httpx.HTTPError as error:
        raise NetworkError(
            f"the mirror does not answer ({type(error).__name__})",
            hint="Look at its address and certificate.",
        ) from error


def published_files(folder: Path) -> tuple[str, ...]:
    """Return the files of the newest published state, in the order in which a mirror gets them.

    Raises:
        NotFoundError: nothing is published yet.
    """
    metadata = folder / "metadata"
    snapshots = versions(metadata, Snapshot.type)
    if not snapshots:
        raise NotFoundError("nothing is published yet", hint="Run `pht-board publish`.")
    snapshot = read_metadata(metadata / f"{snapshots[-1]}.snapshot.json", Snapshot)
    targets_name = f"{snapshot.meta['targets.json'].version}.targets.json"
    targets = read_metadata(metadata / targets_name, Targets)
    paths = [f"targets/{hashed(path, info)}" for path, info in sorted(targets.targets.items())]
    paths += [f"metadata/{version}.root.json" for version in versions(metadata, Root.type)]
    paths += [f"metadata/{targets_name}", f"metadata/{snapshots[-1]}.snapshot.json"]
    if (metadata / "timestamp.json").exists():
        paths.append("metadata/timestamp.json")
    return tuple(paths)


def _push_to_folder(folder: Path, to: Path, paths: tuple[str, ...]) -> tuple[str, ...]:
    sent = []
    for path in paths:
        data = (folder / path).read_bytes()
        there = to / path
        if not there.exists() or there.read_bytes() != data:
            write_atomically(there, data)
            sent.append(path)
    return tuple(sent)


def _put(client: "httpx.Client", url: str, file: Path) -> bool:
    data = file.read_bytes()
    present = client.get(url)
    if present.status_code == _OK and present.content == data:
        return False
    response = client.put(url, content=data, headers={"Content-Type": "application/json"})
    if response.status_code in _UNAUTHORISED:
        raise TrustError(
            "the mirror does not accept the token", hint="Ask the orchestrator's operator for one."
        )
    if not response.is_success:
        if _is_overtaken(data, client.get(url).content):
            return False
        raise NetworkError(f"the mirror answered {response.status_code} to {file.name}")
    return True


def _is_overtaken(data: bytes, there: bytes) -> bool:
    """Whether a timestamp was refused because a newer one came first: who vouched later vouched for this, too."""
    ours, theirs = _timestamp_version(data), _timestamp_version(there)
    return ours is not None and theirs is not None and ours < theirs


def _timestamp_version(data: bytes) -> int | None:
    try:
        signed = Metadata[Timestamp].from_bytes(data).signed
    except (DeserializationError, RepositoryError):
        return None
    # What was read may be of any role.
    return signed.version if signed.type == Timestamp.type else None
