"""The docker command line, as building needs it: run, explain what failed, look at an image."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from policies.errors import UnavailableError

INPUTS_LABEL: Final = "nl.pht.inputs"
"""Label of our images: the hash of what they were made of."""

_START_HINT: Final = (
    "Install and start Docker (Debian: apt-get install docker.io), and let this user reach its socket."
)
_QUERY_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the engine says about an image.

    Attributes:
        image_id: ``sha256:<hex>``.
        size_bytes: with the layers it shares.
        inputs: the hash it was made of, empty for images that are not ours.
        imported: it was made of a tree of files.
        digests: the names by which registries have it, ``NAME@sha256:<hex>``.
    """

    image_id: str
    size_bytes: int
    inputs: str
    imported: bool = False
    digests: tuple[str, ...] = ()


def inspect_image(tag: str) -> ImageFacts | None:
    """Look an image up by its name; ``None`` when the engine does not have it.

    Raises:
        UnavailableError: no engine answers.
    """
    try:
        found = subprocess.run(
            ["docker", "image", "inspect", tag],
            check=False,
            capture_output=True,
            text=True,
            timeout=_QUERY_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError("the docker command cannot be run", hint=_START_HINT) from error
    if found.returncode != 0:
        if "no such image" in found.stderr.lower():
            return None
        raise UnavailableError("no Docker engine answers", hint=_START_HINT)
    facts = json.loads(found.stdout)[0]
    labels = facts["Config"].get("Labels") or {}
    imported = str(facts.get("Comment", "")).startswith("Imported from")
    digests = tuple(facts.get("RepoDigests") or ())
    return ImageFacts(facts["Id"], facts["Size"], labels.get(INPUTS_LABEL, ""), imported, digests)


def run_or_explain(command: Sequence[str], failure: str, *, timeout_s: float, hint: str = "") -> str:
    """Run a command and return its output.

    Raises:
        UnavailableError: it failed; with its last lines.
    """
    try:
        done = subprocess.run(list(command), check=False, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{failure}: {command[0]} did not finish", hint=hint) from error
    if done.returncode != 0:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise UnavailableError(f"{failure}: {last}", hint=hint)
    return done.stdout
