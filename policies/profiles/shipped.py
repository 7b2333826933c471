"""The profiles that ship with this version."""

import re
from functools import cache
from importlib.resources import files

from policies.documents import load_json
from policies.errors import NotFoundError
from policies.profiles.model import Profile

DEFAULT_PROFILE = "thorax-1@1"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}@[0-9]{1,4}")


@cache
def load_profile(profile: str = DEFAULT_PROFILE) -> Profile:
    """Read a shipped profile.

    Raises:
        NotFoundError: there is no such profile.
    """
    resource = files("policies.profiles").joinpath(f"{profile}.json")
    if not _ID.fullmatch(profile) or not resource.is_file():
        raise NotFoundError("there is no such minimal-dataset profile")
    return load_json(Profile, resource.read_bytes(), what=f"profile {profile}")
