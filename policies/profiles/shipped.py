"""The profiles that ship with this version."""

import re
from functools import cache
from importlib.resources import files

from policies.documents import load_json
from policies.errors import NotFoundError, StateError
from policies.profiles.model import Profile

DEFAULT_PROFILE = "thorax-1@1"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}@[0-9]{1,4}")


def shipped_profiles() -> tuple[str, ...]:
    """Return the ids of the profiles that are here."""
    names = (resource.name.removesuffix(".json") for resource in files("policies.profiles").iterdir())
    return tuple(sorted(name for name in names if _ID.fullmatch(name)))


@cache
def load_profile(profile: str = DEFAULT_PROFILE) -> Profile:
    """Read a shipped profile.

    Raises:
        NotFoundError: there is no such profile.
        StateError: the file is not the profile that its name says.
    """
    resource = files("policies.profiles").joinpath(f"{profile}.json")
    if not _ID.fullmatch(profile) or not resource.is_file():
        raise NotFoundError(
            "there is no such minimal-dataset profile",
            hint="`pht-board profile list` names those of this version.",
        )
    found = load_json(Profile, resource.read_bytes(), what=f"profile {profile}")
    if found.id != profile:
        raise StateError(f"profile {profile}: the file holds another one")
    return found
