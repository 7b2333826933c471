"""The pack's description for others' tools: RO-Crate 1.1 metadata with the Process Run Crate profile.

Sources: RO-Crate Metadata Specification 1.1.1 (root data entity, data entities, contextual entities); Process Run Crate 0.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from policies.charter import Charter
from policies.documents import canonical_json, format_moment
from policies.evidence.archive import CRATE, DIGESTS, LEDGER, ORDER, POLICY, STATEMENT, TARGETS, TRAIN, TRUST
from policies.evidence.statement import RunFact
from policies.policy import Policy

CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LICENCE = "https://creativecommons.org/publicdomain/zero/1.0/"

_NAMES = {
    STATEMENT: ("What the station says of the run, signed (in-toto, DSSE)", "application/json"),
    ORDER: ("The run order, signed by the requester (DSSE)", "application/json"),
    POLICY: ("The policy as its members read it", "application/yaml"),
    TRAIN: ("The train's manifest", "application/yaml"),
    LEDGER: ("This run's entries of the station's egress ledger", "application/jsonl"),
    DIGESTS: ("The digests of the ledger's entries around them", "text/plain"),
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the pack: its length in bytes and its digest."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class CrateFacts:
    """What the description tells besides the files."""

    run: RunFact
    policy: Policy
    charter: Charter
    organisation: str
    failed: bool


def crate_metadata(facts: CrateFacts, files: Mapping[str, File]) -> bytes:
    """Return ``ro-crate-metadata.json``.

    Args:
        facts: what the run was.
        files: every file of the pack but this description, and the statement that is made after it: the statement is
            described without length and digest, since it names this description's.
    """
    named = sorted({*files, STATEMENT})
    run, policy = facts.run, facts.policy
    action = f"#run-{run.order.digest.removeprefix('sha256:')[:16]}"
    graph: list[JsonValue] = [
        {"@id": CRATE, "@type": "CreativeWork", "conformsTo": _id(SPECIFICATION), "about": _id("./")},
        {
            "@id": "./",
            "@type": "Dataset",
            "conformsTo": _id(PROFILE),
            "name": f"Evidence of a run of {policy.title} at {facts.organisation}",
            "description": "What permitted the run, what was run, and what left the hospital; nothing about a patient. "
            "`pht-board evidence verify` checks it from the board's root alone.",
            "datePublished": format_moment(run.as_of),
            "license": _id(_LICENCE),
            "publisher": _id("#station"),
            "hasPart": [_id(name) for name in named],
            "mentions": [_id(action)],
        },
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": _LICENCE, "@type": "CreativeWork", "name": "CC0 1.0", "url": _LICENCE},
        _action(action, facts),
        {
            "@id": "#train",
            "@type": "SoftwareApplication",
            "name": policy.title,
            "identifier": run.image_config_digest,
            "softwareVersion": run.manifest_digest,
            "description": "The approved train: a container image, by the digest of its config.",
        },
        {"@id": "#station", "@type": "Organization", "name": facts.organisation, "identifier": run.station},
        {
            "@id": "#requester",
            "@type": "Organization",
            "name": policy.requester.organisation,
            "identifier": policy.requester.key,
        },
        {
            "@id": "#board",
            "@type": "Organization",
            "name": facts.charter.title,
            "identifier": facts.charter.board,
        },
    ]
    graph += [
        _release(release.round, release.stage, release.reply_digest, release.reply_bytes)
        for release in run.releases
    ]
    graph += [_file(name, files.get(name)) for name in named]
    return canonical_json({"@context": list(CONTEXT), "@graph": graph})


def _action(name: str, facts: CrateFacts) -> dict[str, JsonValue]:
    run = facts.run
    action: dict[str, JsonValue] = {
        "@id": name,
        "@type": "CreateAction",
        "name": f"Run {run.order.digest} under policy {run.policy.id}, version {run.policy.version}",
        "description": facts.policy.purpose.statement,
        "instrument": _id("#train"),
        "agent": _id("#requester"),
        "provider": _id("#station"),
        "object": [_id(ORDER), _id(POLICY), _id(TRAIN)],
        "result": [_id(f"#release-{release.round}-{release.stage}") for release in run.releases]
        or [_id(STATEMENT)],
        "startTime": format_moment(run.first_seen),
        "endTime": format_moment(run.finished or run.as_of),
        "actionStatus": _id(f"http://schema.org/{'Failed' if facts.failed else 'Completed'}ActionStatus"),
    }
    return action


def _release(round_: int, stage: str, digest: str, size: int) -> dict[str, JsonValue]:
    return {
        "@id": f"#release-{round_}-{stage}",
        "@type": "CreativeWork",
        "name": f"Release of round {round_}, stage {stage}",
        "description": "Left the station; not in this pack.",
        "identifier": digest,
        "contentSize": str(size),
    }


def _file(name: str, file: File | None) -> dict[str, JsonValue]:
    title, media_type = _NAMES.get(name) or (_trust_name(name), "application/json")
    entity: dict[str, JsonValue] = {
        "@id": name,
        "@type": "File",
        "name": title,
        "encodingFormat": media_type,
    }
    if file is not None:
        entity |= {"contentSize": str(file.size), "sha256": file.digest.removeprefix("sha256:")}
    return entity


def _trust_name(name: str) -> str:
    if name.startswith(TARGETS):
        return f"Signed by the board: {name.removeprefix(TARGETS)}"
    return f"The board's repository: {name.removeprefix(TRUST)}"


def _id(value: str) -> dict[str, JsonValue]:
    return {"@id": value}
