"""`pht-train storage`: what your uploads take at the orchestrator, and removing what you need no longer.

Parses, calls one use case, renders.
"""

from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_line
from train_images.connection_options import CaOption, ProfileOption, TokenOption, ToOption, open_registry

storage_app = new_app("What your uploads take at the orchestrator.")
_MIB = 1 << 20


@storage_app.command("list")
def storage_list(
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what you sent, the largest first, and what needs it."""
    with open_registry(to, token_file, ca, profile) as registry:
        found = registry.holding()
    if as_json:
        echo_json(found)
        return
    for one in found.blobs:
        say_line(f"{one.digest}  {one.size / _MIB:12.1f} MiB  {one.use}")
    limit = f"{found.limit_bytes // _MIB} MiB" if found.limit_bytes else "as much as there is"
    say(f"{found.used_bytes / _MIB:.1f} MiB are used of {limit}.")


@storage_app.command("delete")
def storage_delete(
    digest: Annotated[str, typer.Argument(help="The blob's digest, as `storage list` shows it.")],
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
) -> None:
    """Remove a blob that no train and no unfinished order needs, or what is there of its upload."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - each command loads what it needs

    from policies.documents import Digest  # noqa: PLC0415
    from policies.errors import UsageError  # noqa: PLC0415

    try:
        wanted = TypeAdapter(Digest).validate_python(digest)
    except ValidationError as error:
        raise UsageError("not a digest of the form sha256:<64 hex digits>") from error
    with open_registry(to, token_file, ca, profile) as registry:
        registry.delete_blob(wanted)
    say(f"Removed {wanted}.")
