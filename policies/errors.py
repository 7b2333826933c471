"""The one tree of faults, and the exit codes of the four programs.

A decision ("this train may not run here") is a value, see `policies.refusals`; a fault is one of these:

    PhtError
    ├── UsageError            the command line or a request asks for something that makes no sense
    ├── DocumentError         a YAML/JSON document is not what its schema says
    ├── TrustError            a signature, key, certificate or repository does not verify
    ├── DataError             hospital data cannot be read or does not fit
    ├── SettingsError         a settings file or environment value is wrong
    ├── StateError            stored state is missing, damaged or from another version
    ├── StorageError          the disk is full or a folder cannot be written
    ├── UnavailableError      something we need does not answer (engine, port, peer)
    │   └── NetworkError      ... over the network
    ├── WireError             bytes from another party are not a message of ours
    ├── RefusedError          a command ends because a rule refused (carries the refusal)
    └── NotFoundError         the named thing does not exist

Every error says what happened and, in `hint`, what to do about it. Neither text may hold a patient's value, a
path to an image, or anything a train wrote.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes shared by all four programs; documented in the README and tested against it."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    DOCUMENT = 3
    REFUSED = 4
    TRUST = 5
    UNAVAILABLE = 6
    STORAGE = 7
    DATA = 8
    NOT_FOUND = 9


class PhtError(Exception):
    """Base of all faults of this project.

    Attributes:
        hint: what the reader can do about it; may be empty.
        exit_code: what a program ends with when this reaches its edge.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PhtError):
    """The command line or a request asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class DocumentError(PhtError):
    """A document is not what its schema says; names the file, the key and the line."""

    exit_code = ExitCode.DOCUMENT


class TrustError(PhtError):
    """A signature, key, certificate or repository does not verify."""

    exit_code = ExitCode.TRUST


class DataError(PhtError):
    """Hospital data cannot be read or does not fit."""

    exit_code = ExitCode.DATA


class SettingsError(PhtError):
    """A settings file or environment value is wrong."""

    exit_code = ExitCode.DOCUMENT


class StateError(PhtError):
    """Stored state is missing, damaged or from another version."""

    exit_code = ExitCode.FAILURE


class StorageError(PhtError):
    """The disk is full or a folder cannot be written."""

    exit_code = ExitCode.STORAGE


class UnavailableError(PhtError):
    """Something we need does not answer: the engine, a port, a peer."""

    exit_code = ExitCode.UNAVAILABLE


class NetworkError(UnavailableError):
    """A peer over the network does not answer, or answers nonsense."""


class WireError(PhtError):
    """Bytes from another party are not a message of ours."""

    exit_code = ExitCode.DOCUMENT


class NotFoundError(PhtError):
    """The named thing does not exist."""

    exit_code = ExitCode.NOT_FOUND


class RefusedError(PhtError):
    """A command ends because a rule refused.

    Attributes:
        code: the refusal's code, as in `policies.refusals.RefusalCode`.
    """

    exit_code = ExitCode.REFUSED

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
