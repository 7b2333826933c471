"""The stations that take part, as the board's register says; nothing else makes a station known here.

Verifies the mirror with the root that the operator pinned, then registers each node key with the SuperLink. A station
that left the register loses its access here at once.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.noting import Moments
from orchestrator.registry.superlink_port import read_superlink_port
from orchestrator.registry.trust import verified_policies
from orchestrator.settings import Home
from orchestrator.storage import Database, StationRow
from policies.charter import StationRegister
from policies.errors import NotFoundError, PhtError, UnavailableError
from policies.files import exclusive_lock
from policies.wire.http import key_fingerprint, load_public_key

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StationView:
    """A station as the operator sees it."""

    name: str
    organisation: str
    key_fingerprint: str
    node_id: int | None
    last_seen: datetime | None
    register_version: int


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What reading the register changed."""

    register_version: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    nodes_registered: int


class Stations:
    """The register as last verified."""

    def __init__(self, home: Home, database: Database, audit: Audit | None = None) -> None:
        self._home, self._database = home, database
        self._audit = audit or Audit(database)
        self._seen = Moments(self._note_seen)
        self.followed = 0
        """How often the register was followed in this process: what was read of it before is old."""

    def all(self) -> list[StationView]:
        """All stations, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(StationRow).order_by(StationRow.name)).all()
        return [
            StationView(
                row.name,
                row.organisation,
                row.key_fingerprint,
                None if row.node_id is None else int(row.node_id),
                self._seen.newest(row.key_fingerprint, row.last_seen),
                row.register_version,
            )
            for row in rows
        ]

    def is_registered(self, fingerprint: str) -> bool:
        """Whether a node key is of a station in the register."""
        with self._database.reading() as session:
            return (
                session.scalar(select(StationRow.name).where(StationRow.key_fingerprint == fingerprint))
                is not None
            )

    def fingerprints(self) -> frozenset[str]:
        """The node keys of the register's stations."""
        with self._database.reading() as session:
            return frozenset(session.scalars(select(StationRow.key_fingerprint)))

    def saw(self, fingerprint: str) -> None:
        """Note that a registered station spoke to us, proven by its key; written at most every `noting.STALE_S`."""
        self._seen.note(fingerprint)

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what was noted of stations."""
        self._seen.flush(all_of_it=all_of_it)

    def _note_seen(self, moments: Mapping[str, datetime]) -> None:
        with self._database.transaction() as session:
            query = select(StationRow).where(StationRow.key_fingerprint.in_(list(moments)))
            for row in session.scalars(query):
                row.last_seen = moments[row.key_fingerprint]

    def sync(self) -> SyncResult:
        """Read the board's register from the mirror and follow it; a station that the board withdrew is out.

        Raises:
            NotFoundError: the board has published no register.
            TrustError: no root is pinned, or the mirror does not verify.
            UnavailableError: the SuperLink does not answer; the register is followed, its nodes are not known yet.
        """
        # The command line and the front may both be at it; a key is registered with the SuperLink once.
        with exclusive_lock(self._home.run / "sync.lock"):
            policies = verified_policies(self._home)
            register = policies.register
            if register is None:
                raise NotFoundError(
                    "the board has published no register of stations",
                    hint="Ask the board's secretary to publish one.",
                )
            left = tuple(one for one in register.stations if one.name not in policies.revoked_stations)
            added, removed = self._follow(register.model_copy(update={"stations": left}))
            self.followed += 1
            return SyncResult(register.version, added, removed, self._register_nodes())

    def sync_quietly(self) -> bool:
        """`sync` after a publication; what fails is logged, and tried again at the next one.

        Returns:
            Whether it worked.
        """
        try:
            result = self.sync()
        except PhtError as error:
            _LOG.warning("station_sync_failed", extra={"code": type(error).__name__})
            return False
        _LOG.info("station_sync", extra={"register_version": result.register_version})
        return True

    def _follow(self, register: StationRegister) -> tuple[tuple[str, ...], tuple[str, ...]]:
        wanted = {station.name: station for station in register.stations}
        with self._database.transaction() as session:
            rows = {row.name: row for row in session.scalars(select(StationRow)).all()}
            prints = {
                name: key_fingerprint(load_public_key(station.node_key.encode()))
                for name, station in wanted.items()
            }
            gone = [name for name, row in rows.items() if prints.get(name) != row.key_fingerprint]
            if gone or wanted.keys() - rows.keys() or _version(rows) != register.version:
                about = f"register version {register.version}"
                self._audit.append_in(
                    session,
                    AuditEvent(action=Action.REGISTER_FOLLOWED, who="board's register", about=about),
                )
            session.execute(delete(StationRow).where(StationRow.name.in_(gone)))
            for name, station in wanted.items():
                if name in rows and name not in gone:
                    rows[name].register_version = register.version
                    rows[name].organisation = station.organisation
                    rows[name].identity_key = station.identity_key
                    continue
                session.add(
                    StationRow(
                        name=name,
                        organisation=station.organisation,
                        identity_key=station.identity_key,
                        node_key=station.node_key,
                        key_fingerprint=prints[name],
                        register_version=register.version,
                        node_id=None,
                        last_seen=None,
                    )
                )
        added = tuple(sorted(name for name in wanted if name not in rows or name in gone))
        return added, tuple(sorted(name for name in gone if name not in wanted))

    def _register_nodes(self) -> int:
        with self._database.transaction() as session:
            waiting = session.scalars(select(StationRow).where(StationRow.node_id.is_(None))).all()
        if not waiting:
            return 0
        # Flower takes a second to import: only who registers pays.
        from orchestrator.federation.flower import Control  # noqa: PLC0415
        from orchestrator.federation.ports import LOOPBACK  # noqa: PLC0415
        from orchestrator.federation.superlink import SuperLinkFiles  # noqa: PLC0415
        from orchestrator.federation.tasks import Address  # noqa: PLC0415

        files = SuperLinkFiles(self._home.superlink)
        try:
            secret = files.secret.read_bytes()
        except FileNotFoundError as error:
            raise UnavailableError(
                "the SuperLink was never started", hint="Run `pht-orchestrator serve`."
            ) from error
        control = Control(Address(LOOPBACK, read_superlink_port(self._home), files.ca), secret)
        try:
            known = control.nodes()
            for row in waiting:
                node_id = control.register_node(row.node_key.encode(), known)
                self._note_node(row.name, row.key_fingerprint, node_id)
        finally:
            control.close()
        return len(waiting)

    def _note_node(self, name: str, fingerprint: str, node_id: int) -> None:
        with self._database.transaction() as session:
            row = session.get(StationRow, name)
            if row is not None and row.key_fingerprint == fingerprint:
                row.node_id = str(node_id)
                self._audit.append_in(
                    session,
                    AuditEvent(
                        action=Action.NODE_REGISTERED, who="board's register", about=f"station:{name}"
                    ),
                )


def _version(rows: Mapping[str, StationRow]) -> int:
    return max((row.register_version for row in rows.values()), default=0)
