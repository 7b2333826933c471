"""`pht-orchestrator audit`: what was done here, as a chain that shows when it was tampered with."""

import re
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer

from orchestrator.commands.opening import HomeArgument, services
from policies import console
from policies.chains import MAX_BODY_BYTES, ChainBreak, ChainHead, Link, verify_links
from policies.console import JsonOption
from policies.documents import digest_of
from policies.errors import RefusedError, StorageError, UsageError
from policies.files import write_atomically

audit_app = console.new_app("The orchestrator's own audit: who did what, hash-chained.")
_HEAD: Final = re.compile(r"^([0-9]{1,15}):(sha256:[0-9a-f]{64})$")

KnownOption = Annotated[
    str | None,
    typer.Option(
        "--known",
        metavar="SEQ:DIGEST",
        help="An end that was noted down before: shows also whether the chain was cut off or written anew.",
    ),
]


@audit_app.command("show")
def audit_show(
    home: HomeArgument,
    after: Annotated[int, typer.Option(min=0, help="Entries after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show entries, the oldest first, and the end of the chain."""
    with closing(services(home)) as parts:
        events, head = parts.audit.page(after, limit)
    if as_json:
        console.echo_json({"entries": events, "head": head})
        return
    for one in events:
        event = one.event
        more = f" and {event.more} more" if event.more else ""
        console.say_line(
            f"{one.seq:6} {one.time:%Y-%m-%d %H:%M:%S} {event.outcome:8} {event.action:18} {event.who}"
            f"  {event.about} {event.code}{more}".rstrip()
        )
    console.say(f"end of the chain: {head.seq}:{head.digest}")


@audit_app.command("export")
def audit_export(
    home: HomeArgument,
    out: Annotated[Path, typer.Argument(help="The file to write: one entry per line.")],
    as_json: JsonOption = False,
) -> None:
    """Write the whole chain to a file that `audit verify --file` checks anywhere."""
    with closing(services(home)) as parts:
        lines = list(parts.audit.lines())
    write_atomically(out, b"".join(line + b"\n" for line in lines), mode=0o600)
    end = f"{len(lines)}:{digest_of(lines[-1])}" if lines else ""
    if as_json:
        console.echo_json({"file": out, "entries": len(lines), "end": end})
    else:
        console.say(f"wrote {len(lines)} entries; end of the chain: {end}")


@audit_app.command("verify")
def audit_verify(
    home: HomeArgument,
    known: KnownOption = None,
    file: Annotated[Path | None, typer.Option("--file", help="An exported file, instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry and link; ends with exit code 4 where the chain does not hold, and says where."""
    head = None if known is None else _head(known)
    if file is not None:
        from orchestrator.registry.audit import CHAIN  # noqa: PLC0415 - starts faster without

        result = verify_links(CHAIN, _links(file), head)
    else:
        with closing(services(home)) as parts:
            result = parts.audit.verify(head)
    if isinstance(result, ChainBreak):
        raise RefusedError(
            "AUDIT_BROKEN",
            f"the audit does not hold at entry {result.seq}: {result.problem}",
            hint="Keep the database as it is, and compare with an earlier export.",
        )
    found = result.value
    if as_json:
        console.echo_json({"entries": found.seq, "digest": found.digest})
    else:
        console.say(f"holds: {found.seq} entries; note down {found.seq}:{found.digest}")


def _head(text: str) -> ChainHead:
    match = _HEAD.fullmatch(text)
    if match is None:
        raise UsageError("--known is SEQ:DIGEST, as `audit verify` prints it")
    return ChainHead(int(match.group(1)), match.group(2))


def _links(path: Path) -> list[Link]:
    found: list[Link] = []
    try:
        with path.open("rb") as lines:
            while line := lines.readline(MAX_BODY_BYTES + 2):
                body = line.removesuffix(b"\n")
                # A line without its end is not an entry as it was written.
                found.append(Link(len(found) + 1, body, digest_of(body) if line != body else ""))
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be read ({error.strerror})") from error
    return found
