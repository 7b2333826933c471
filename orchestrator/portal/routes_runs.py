"""Runs: how they go, their rounds as events with long polling, their results, and the wish to stop."""

import json
import time
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel

from orchestrator.federation.orders import RunProgress
from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.registry.access import Role
from orchestrator.registry.runs import MAX_WAIT_S, POLL_S, RunView, deadline
from policies.documents import Digest, format_moment
from policies.mirror_report import MirrorReport

_ANSWER_BYTES = 4 << 20
"""Clients read at most 8 MiB."""

router = APIRouter(prefix="/runs", tags=["runs"])
_WATCHERS = (Role.RESEARCHER, Role.BOARD, Role.OPERATOR, Role.AUDITOR)
_STOPPERS = (Role.RESEARCHER, Role.BOARD, Role.OPERATOR)


class RunSummary(BaseModel):
    """One run."""

    digest: str
    order_id: str
    policy_id: str
    policy_version: int
    requester: str
    accepted: str
    stations: list[str]
    progress: RunProgress
    result: list[str]
    """The files of what the run gives; there when `provenance.json` is, which says whether the run did all that was ordered."""


class RunDetail(RunSummary):
    """One run with its finished rounds (the newest ones where it has very many), and how it came to be where it is."""

    rounds: list[dict[str, Any]]
    """As the policy has them shown: by station only with `release.station_results`."""
    history: list[dict[str, Any]]
    """Changes of state (`state`, `round`, `code`) and wishes (`asked`, `by`), each `at` a moment; oldest first."""


class RunEvents(BaseModel):
    """What is new: finished rounds after number `after`, and where the run stands."""

    events: list[dict[str, Any]]
    next: int
    mark: str
    """Give it back as `mark` to be answered as soon as the state or the stage is another."""
    more: bool
    """Whether there are more rounds now than fit into one answer: ask again with `next`."""
    progress: RunProgress


@router.get("", summary="Your runs (board, operator and auditor: all runs)")
def list_runs(asking: CallerOf, parts: ServicesOf) -> list[RunSummary]:
    """List runs, the newest first."""
    return [RunSummary(**_fields(view)) for view in parts.runs.all(require(asking, *_WATCHERS))]


@router.get("/{digest}", summary="One run with its rounds")
def get_run(digest: Digest, asking: CallerOf, parts: ServicesOf) -> RunDetail:
    """Show a run."""
    principal = require(asking, *_WATCHERS)
    view = parts.runs.get(principal, digest)
    return RunDetail(
        **_fields(view),
        rounds=_as_many_as_fit(parts.runs.rounds(principal, digest)[::-1])[::-1],
        history=parts.runs.history(principal, digest),
    )


@router.get("/{digest}/events", summary="Wait for the next round or a change of state")
async def get_events(
    digest: Digest,
    asking: CallerOf,
    parts: ServicesOf,
    after: Annotated[int, Query(ge=0)] = 0,
    mark: Annotated[str, Query(max_length=100)] = "",
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 20.0,
) -> RunEvents:
    """Answer as soon as there is something new, at the latest after `wait_s`."""
    principal = require(asking, *_WATCHERS)
    await run_in_threadpool(parts.runs.get, principal, digest)
    # Who brings no mark knows nothing yet, and is told at once.
    end = deadline(wait_s if mark else 0.0)
    # The run worker is another process and writes files: looking at them is the whole protocol.
    while time.monotonic() < end and not await run_in_threadpool(  # noqa: ASYNC110 - the event is another process's
        parts.runs.changed_since, digest, after, mark
    ):
        await anyio.sleep(POLL_S)
    # The mark before the rest: what changes in between is news again at the next call.
    mark = await run_in_threadpool(parts.runs.mark, digest)
    progress = (await run_in_threadpool(parts.runs.get, principal, digest)).progress
    rounds = await run_in_threadpool(parts.runs.rounds, principal, digest)
    events = _as_many_as_fit(rounds[after:])
    reached = after + len(events)
    return RunEvents(events=events, next=reached, more=reached < len(rounds), mark=mark, progress=progress)


@router.post("/{digest}/stop", summary="Ask that a run stops", status_code=202)
def stop_run(digest: Digest, asking: CallerOf, parts: ServicesOf) -> dict[str, str]:
    """Stop a run: its stations are told to finish."""
    parts.runs.stop(require(asking, *_STOPPERS), digest)
    return {"digest": digest}


@router.post("/{digest}/resume", summary="Queue a failed or stopped run again", status_code=202)
def resume_run(digest: Digest, asking: CallerOf, parts: ServicesOf) -> dict[str, str]:
    """Let a run go on from its checkpoint; stations decide again whether they take part."""
    parts.runs.resume(require(asking, Role.RESEARCHER, Role.OPERATOR), digest)
    return {"digest": digest}


@router.get("/{digest}/result/{name}", summary="A file of the result (ranges)", response_class=FileResponse)
def get_result(digest: Digest, name: str, asking: CallerOf, parts: ServicesOf) -> Response:
    """Serve a file of the result; its ETag is the digest of its bytes, so that a download goes on with `If-Range`."""
    path = parts.runs.result_file(require(asking, Role.RESEARCHER, Role.OPERATOR), digest, name)
    headers = {"ETag": f'"{parts.runs.result_digest(path)}"', "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, filename=name, headers=headers)


@router.get("/{digest}/mirror-report", summary="A station's own mirror report of a run that is over")
def get_mirror_report(digest: Digest, asking: CallerOf, parts: ServicesOf) -> MirrorReport:
    """Show the station that asks its own values beside what may be told of all; no route shows another's."""
    return parts.runs.mirror_report(require(asking, Role.STATION), digest)


def _as_many_as_fit(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rounds that one answer can carry, at least one: with a hundred stations a round has tens of kB."""
    left = _ANSWER_BYTES
    for number, entry in enumerate(rounds):
        left -= len(json.dumps(entry))
        if left < 0:
            return rounds[: max(1, number)]
    return rounds


def _fields(view: RunView) -> dict[str, Any]:
    return {
        "digest": view.digest,
        "order_id": view.order_id,
        "policy_id": view.policy_id,
        "policy_version": view.policy_version,
        "requester": view.requester.partition(":")[2],
        "accepted": format_moment(view.accepted),
        "stations": list(view.stations),
        "progress": view.progress,
        "result": list(view.result),
    }
