"""Cohorts: what a train is given, frozen on disk. Pure of settings and database, so that a dry run is the real thing."""

from station.cohorts.decoding import DecoderPool
from station.cohorts.definition import CohortDefinition, define, rounded
from station.cohorts.freeze import freeze
from station.cohorts.frozen import FrozenCohort, load, sweep, wipe
from station.cohorts.keys import CohortKey
from station.cohorts.pixels import Unusable
from station.cohorts.source import CaseSource, JsonScalar, MaskSource, SourceFile

__all__ = [
    "CaseSource",
    "CohortDefinition",
    "CohortKey",
    "DecoderPool",
    "FrozenCohort",
    "JsonScalar",
    "MaskSource",
    "SourceFile",
    "Unusable",
    "define",
    "freeze",
    "load",
    "rounded",
    "sweep",
    "wipe",
]
