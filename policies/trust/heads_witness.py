"""The witness's second duty: to have seen where every station's records stood, and to say so in one signed document.

Fetches the stations' statements from the orchestrator, verifies each with the identity key of the register that the members
signed, holds it against its own memory, and signs `StationHeads`. Invariants: its memory is durable before a signature
leaves, and never goes back; of two statements that exclude each other it keeps both and goes on vouching for the first;
the orchestrator can withhold a statement, and nothing else.
"""

import logging
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, ValidationError

from policies.charter import REGISTER_TARGET, RegisteredStation, StationRegister
from policies.documents import Moment, Name, Sequence, StrictModel, canonical_json
from policies.errors import PhtError, StateError, TrustError
from policies.files import exclusive_lock, write_atomically
from policies.policy import PublicKeyHex
from policies.refusals import Refused
from policies.rules.statement_rules import held_against
from policies.signing import Signer
from policies.station_heads import (
    MAX_REMEMBERED,
    StationHeads,
    WitnessedFork,
    WitnessedRestoration,
    WitnessedStation,
    sign_heads,
)
from policies.station_statement import (
    MAX_STATEMENT_BYTES,
    StatedList,
    StatementAnswer,
    StationStatement,
    open_statement,
)
from policies.trust.repository import BoardRepository
from policies.trust.verification import verify_register

MAX_FORKS_OF_ONE = 10
MAX_RESTORATIONS_OF_ONE = 10

_Envelope = Annotated[str, Field(max_length=2 * MAX_STATEMENT_BYTES)]
_log = logging.getLogger(__name__)


class StatementSource(Protocol):
    """Where statements come from and the document goes to; `RegistryClient` is one."""

    def statements(self) -> StatedList:
        """Which statement of each station is the newest."""

    def get_statement(self, station: str) -> StatementAnswer:
        """The newest statement of a station."""

    def put_heads(self, envelope: bytes) -> None:
        """Send the document."""


class _Seen(StrictModel):
    """The newest statement of one station, under the key that signed it."""

    identity_key: PublicKeyHex
    envelope: _Envelope
    seen: Moment


class _Evidence(StrictModel):
    """Two statements that exclude each other, whole."""

    fork: WitnessedFork
    standing: _Envelope
    offered: _Envelope


class _Memory(StrictModel):
    """Everything the witness has seen of stations."""

    schema_version: Literal[1] = 1
    stations: dict[Name, _Seen] = Field(default_factory=dict)
    forks: Sequence[_Evidence] = ()
    restorations: Sequence[WitnessedRestoration] = ()


class HeadsWitness:
    """Vouches for where stations' records stood.

    Args:
        folder: the board's repository.
        key: the witness's: the same that signs timestamps, over another type of document.
        state_dir: the witness's own folder; by default ``witness`` in the repository.
    """

    def __init__(self, folder: Path, key: Signer, *, state_dir: Path | None = None) -> None:
        self._repository = BoardRepository(folder)
        self._key = key
        self._path = (state_dir or folder / "witness") / "heads.json"

    def vouch_once(self, source: StatementSource, now: datetime) -> StationHeads:
        """Take up what stations stated, sign where they stand, and send that.

        Raises:
            NetworkError: the orchestrator does not answer.
            TrustError: the register does not verify.
            StateError: the memory is damaged; it is never started afresh.
        """
        register = self._register()
        listed = {entry.station: entry.statement for entry in source.statements().stations}
        with exclusive_lock(self._path.with_name(".heads.lock")):
            memory = self._load()
            for station in register.stations if register is not None else ():
                if station.name in listed:
                    memory = self._look_at(memory, station, listed[station.name], source, now)
            if memory != self._load():
                write_atomically(self._path, canonical_json(memory), mode=0o600)
            heads = self._document(memory, register, now)
        source.put_heads(sign_heads(heads, self._key))
        return heads

    def _look_at(
        self,
        memory: _Memory,
        station: RegisteredStation,
        listed: str,
        source: StatementSource,
        now: datetime,
    ) -> _Memory:
        """Return the memory with one station's newest statement in it; what is wrong with one stops no other."""
        before = memory.stations.get(station.name)
        if before is not None and before.identity_key != station.identity_key:
            before = None  # another installation, by the board's word
        standing = None if before is None else _open(before.envelope, station)
        if standing is not None and standing.digest == listed:
            return memory
        try:
            envelope = source.get_statement(station.name).statement
            offered = _open(envelope, station)
        except PhtError as error:
            _log.warning("statement_unusable station=%s reason=%s", station.name, type(error).__name__)
            return memory
        if standing is not None and before is not None:
            if offered.digest == standing.digest:
                return memory
            refused = held_against(standing, offered)
            if refused is not None:
                return _with_fork(memory, (standing, before.envelope), (offered, envelope), refused, now)
        seen = _Seen(identity_key=station.identity_key, envelope=envelope, seen=now)
        memory = memory.model_copy(update={"stations": {**memory.stations, station.name: seen}})
        if offered.restored is not None and (standing is None or standing.epoch < offered.epoch):
            memory = _with_restoration(memory, offered, now)
        return memory

    def _register(self) -> StationRegister | None:
        envelope = self._repository.listed().get(REGISTER_TARGET)
        if envelope is None:
            return None
        verified = verify_register(envelope, self._repository.root.charter())
        if isinstance(verified, Refused):
            raise TrustError("the register of stations does not verify", hint=verified.reasons[0].detail)
        return verified.value

    def _document(self, memory: _Memory, register: StationRegister | None, now: datetime) -> StationHeads:
        stations = []
        for station in register.stations if register is not None else ():
            seen = memory.stations.get(station.name)
            if seen is None or seen.identity_key != station.identity_key:
                continue
            statement = _open(seen.envelope, station)
            stations.append(
                WitnessedStation(
                    station=station.name,
                    epoch=statement.epoch,
                    sequence=statement.sequence,
                    statement=statement.digest,
                    audit=statement.audit,
                    egress=statement.egress,
                    seen=seen.seen,
                )
            )
        return StationHeads(
            board=self._repository.root.charter().board,
            time=now,
            stations=tuple(stations),
            forks=tuple(evidence.fork for evidence in memory.forks),
            restorations=_newest(memory.restorations),
        )

    def _load(self) -> _Memory:
        try:
            return _Memory.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Memory()
        except ValidationError as error:
            raise StateError(
                "the witness's memory of stations is damaged", hint="Restore it; it guards against rollback."
            ) from error


def _open(envelope: str, station: RegisteredStation) -> StationStatement:
    statement = open_statement(envelope.encode(), station.identity_key)
    if statement.station != station.name:
        raise TrustError("the statement is of another station")
    return statement


def _with_fork(
    memory: _Memory,
    standing: tuple[StationStatement, str],
    offered: tuple[StationStatement, str],
    refused: Refused,
    now: datetime,
) -> _Memory:
    """Return the memory with both halves of a contradiction, each as (statement, envelope)."""
    new = offered[0]
    of_this = [evidence.fork for evidence in memory.forks if evidence.fork.station == new.station]
    if any(fork.offered == new.digest for fork in of_this) or len(of_this) >= MAX_FORKS_OF_ONE:
        return memory
    if len(memory.forks) >= MAX_REMEMBERED:
        return memory
    _log.error("station_fork station=%s code=%s", new.station, refused.code.value)
    fork = WitnessedFork(
        station=new.station,
        epoch=new.epoch,
        sequence=new.sequence,
        code=refused.code.value,
        standing=standing[0].digest,
        offered=new.digest,
        seen=now,
    )
    evidence = _Evidence(fork=fork, standing=standing[1], offered=offered[1])
    return memory.model_copy(update={"forks": (*memory.forks, evidence)})


def _with_restoration(memory: _Memory, offered: StationStatement, now: datetime) -> _Memory:
    if offered.restored is None:
        return memory
    _log.warning("station_restored station=%s epoch=%d", offered.station, offered.epoch)
    entry = WitnessedRestoration(
        station=offered.station, epoch=offered.epoch, restored=offered.restored, seen=now
    )
    return memory.model_copy(update={"restorations": _newest((*memory.restorations, entry))})


def _newest(restorations: tuple[WitnessedRestoration, ...]) -> tuple[WitnessedRestoration, ...]:
    """Return the newest of each station, in their order: no station pushes out what is known of another.

    They are what anybody still goes by; the statements themselves lie with the orchestrator too.
    """
    of_each: Counter[str] = Counter()
    kept: list[WitnessedRestoration] = []
    for entry in reversed(restorations):
        of_each[entry.station] += 1
        if of_each[entry.station] <= MAX_RESTORATIONS_OF_ONE:
            kept.append(entry)
    return tuple(reversed(kept[:MAX_REMEMBERED]))
