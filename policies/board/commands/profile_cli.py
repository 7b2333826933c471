"""`pht-board profile`: the minimal-dataset profiles, for whoever writes a manifest or judges one."""

from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table

profile_app = new_app(
    "The minimal-dataset profiles: which clinical fields there are, and how a cohort shows them."
)


def add_commands(app: typer.Typer) -> None:
    """Add the group to the program."""
    app.add_typer(profile_app, name="profile")


@profile_app.command("list")
def profile_list(as_json: JsonOption = False) -> None:
    """Name the profiles of this version."""
    from policies.profiles import load_profile, shipped_profiles  # noqa: PLC0415 - each command loads what it needs

    found = [load_profile(name) for name in shipped_profiles()]
    rows = [
        {"profile": profile.id, "title": profile.title, "fields": len(profile.fields)} for profile in found
    ]
    if as_json:
        echo_json(rows)
        return
    say_table("Profiles", ("profile", "title", "fields"), [list(row.values()) for row in rows])


@profile_app.command("show")
def profile_show(
    profile: Annotated[str, typer.Argument(help="Name and version, such as thorax-1@1.")],
    as_json: JsonOption = False,
) -> None:
    """Show a profile's fields: what they mean, their codes, and how a cohort shows them."""
    from policies.profiles import load_profile  # noqa: PLC0415
    from policies.profiles.describing import page  # noqa: PLC0415

    found = load_profile(profile)
    if as_json:
        echo_json(found)
    else:
        say(page(found))


@profile_app.command("write", hidden=True)
def profile_write() -> None:
    """Write page and schema of every shipped profile beside it, for those who change one."""
    from policies.profiles.describing import write_descriptions  # noqa: PLC0415

    changed = write_descriptions()
    say(f"{len(changed)} changed." if changed else "All as they were.")
