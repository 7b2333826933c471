"""Cohorts: what a train is given, frozen on disk. Pure of settings and database, so that a dry run is the real thing."""

from station.cohorts.cache import VolumeCache
from station.cohorts.decoding import DecoderPool
from station.cohorts.definition import CohortDefinition, define, rounded
from station.cohorts.freeze import freeze
from station.cohorts.frozen import FrozenCohort, load, sweep, wipe
from station.cohorts.keys import CohortKey
from station.cohorts.patients import OnePatient, PatientFolders
from station.cohorts.series import SeriesFinding, SliceHeader, examine_series
from station.cohorts.source import CaseSource, JsonScalar, MaskSource, SourceFile
from station.cohorts.unusable import Unusable

__all__ = [
    "CaseSource",
    "CohortDefinition",
    "CohortKey",
    "DecoderPool",
    "FrozenCohort",
    "JsonScalar",
    "MaskSource",
    "OnePatient",
    "PatientFolders",
    "SeriesFinding",
    "SliceHeader",
    "SourceFile",
    "Unusable",
    "VolumeCache",
    "define",
    "examine_series",
    "freeze",
    "load",
    "rounded",
    "sweep",
    "wipe",
]
