"""Settings of intake's files: how they are processed, and how long each kind of data stays."""

from typing import Annotated

from pydantic import Field

from policies.documents import StrictModel

Days = Annotated[int, Field(ge=1, le=36_500)]


class ProcessingSettings(StrictModel):
    """How intake meets files: worker processes under limits, replaced when a file kills one."""

    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Worker processes; without it, one per core."
    )
    file_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=120, description="Seconds one file may take; over it twice, the file is quarantined."
    )
    worker_memory_mib: Annotated[int, Field(ge=512, le=1 << 22)] = Field(
        default=4096, description="Address space of one worker."
    )
    max_file_mib: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=1024, description="Larger files are quarantined unread."
    )


class RetentionSettings(StrictModel):
    """How long each kind of data stays. Identified files leave the spool as soon as their copy was read again."""

    quarantine_days: Days = Field(
        default=90, description="Identified files in quarantine that nobody released or discarded."
    )
    unclaimed_days: Days = Field(
        default=14, description="Identified batches in the spool whose collection nobody said."
    )
    removed_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        default=24,
        description="Pseudonymised files of instances that were removed, rejected or deleted: compute takes note first.",
    )
    cohorts_days: Days = Field(default=30, description="Frozen cohorts that no run holds.")
    cache_days: Days = Field(default=90, description="Volumes in the cache that no cohort asked for.")
    cache_gib: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        default=200,
        description="Volumes in the cache, all together; the least recently used go first. 0 keeps none.",
    )
    backups_days: Days = Field(
        default=90,
        description="Copies that the operator puts in compute/backups or intake/backups under the station's home.",
    )
