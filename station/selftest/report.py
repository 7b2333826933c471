"""What a selftest found, as a document that an auditor can keep."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Moment, Sequence, StrictModel

Verdict = Literal["stopped", "NOT STOPPED", "not applicable here"]


class Attempt(StrictModel):
    """One thing that was tried.

    Attributes:
        tried: what.
        how: how it ended.
        what: the error, limit or refusal that stopped it; what was got; or why it cannot be tried here.
    """

    tried: str
    how: Literal["stopped", "got", "skipped"]
    what: str


class Line(StrictModel):
    """One line of the table.

    Attributes:
        number: its place in the whole table, the same on every host.
        area: what it is about.
        name: the attack.
        tried: in a sentence.
        stopped_by: what was seen to stop it, or what was got, or why it is not applicable.
        verdict: of all its attempts together.
        attempts: each of them.
        seconds: how long it took.
    """

    number: int
    area: str
    name: str
    tried: str
    stopped_by: str
    verdict: Verdict
    attempts: Sequence[Attempt]
    seconds: float


class HostFacts(StrictModel):
    """The host on which it was tried."""

    kernel: str
    architecture: str
    system: str
    engine: str
    engine_version: str
    runtime: str
    cgroup_version: str
    seccomp: str
    lsm: str
    rootless: bool
    cpus: int
    memory_mib: int
    gpus: int
    station_version: str
    python: str


class Ceilings(StrictModel):
    """What the hostile train was given: the station's own ceilings, or less."""

    memory_mib: int
    cpus: float
    pids: int
    scratch_mib: int


class Report(StrictModel):
    """A whole selftest.

    Attributes:
        schema_version: of this document.
        station: the station's name.
        began: when.
        launcher: whose launcher started the containers.
        image: the hostile train's config digest; the same on hosts with the same Python.
        complete: every attack was tried; false where only some areas were asked for.
    """

    schema_version: Literal[1] = 1
    station: str
    began: Moment
    finished: Moment
    launcher: Literal["the running station's", "this command's own"]
    image: str
    host: HostFacts
    ceilings: Ceilings
    complete: bool
    lines: Sequence[Line]
    stopped: Annotated[int, Field(ge=0)]
    not_stopped: Annotated[int, Field(ge=0)]
    not_applicable: Annotated[int, Field(ge=0)]

    @property
    def held(self) -> bool:
        """Whether everything that was tried was stopped."""
        return self.not_stopped == 0 and bool(self.lines)
