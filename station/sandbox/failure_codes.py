"""The refusal code of each way in which a train fails, told by the station and by a dry run alike."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from policies.refusals import RefusalCode
from station.sandbox.spec import ExitClass, TrainFailure

_CODES: Final[Mapping[ExitClass, RefusalCode]] = MappingProxyType(
    {
        ExitClass.CRASH: RefusalCode.TRAIN_CRASHED,
        ExitClass.TIMEOUT: RefusalCode.TRAIN_TIMEOUT,
        ExitClass.OUT_OF_MEMORY: RefusalCode.TRAIN_OUT_OF_MEMORY,
        ExitClass.PROTOCOL: RefusalCode.TRAIN_PROTOCOL,
        # There was room for all that it may answer when it was asked; what it then did with the room is its own.
        ExitClass.NO_ROOM: RefusalCode.STATION_STORAGE,
        ExitClass.PATIENTS_FAILED: RefusalCode.TRAIN_PATIENTS_FAILED,
        ExitClass.TAKEN_AWAY: RefusalCode.ENGINE_UNAVAILABLE,
        # Unless its manifest declares the code that it gave, which is for the caller to see.
        ExitClass.DECLARED_ERROR: RefusalCode.TRAIN_CRASHED,
    }
)


def code_of(failure: TrainFailure) -> RefusalCode:
    """Return the code of a failure; of an error that the train named, what it is where its manifest does not declare it."""
    return _CODES[failure.exit_class]
