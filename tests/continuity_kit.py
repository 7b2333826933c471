"""A whole station whose records are stated, countersigned and witnessed; its folder can be copied and put back.

On top of `station_kit`: the board's register names the station's real identity key, the witness is the real one with its own
memory, and the orchestrator keeps statements as the real one does, unless a test makes it lie.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from board_kit import register_yaml
from station_kit import STATION, STATIONS, StationKit

from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.errors import NetworkError, NotFoundError, RefusedError
from policies.refusals import Refused
from policies.rules.statement_rules import held_against
from policies.signing import Signer, generate_key, load_signer
from policies.station_heads import StationHeads, open_heads
from policies.station_statement import (
    StatedEntry,
    StatedList,
    StatementAnswer,
    StationStatement,
    open_statement,
    sign_receipt,
)
from policies.trust.heads_witness import HeadsWitness
from station.continuity.desk import ContinuityDesk, PlanView
from station.continuity.drafting import Usage
from station.continuity.messenger import Messenger, Post
from station.continuity.reconciling import Reconciler
from station.continuity.records import Parts, Records
from station.settings.statements import StatementSettings

LIMIT = timedelta(hours=1)


class Registrar:
    """The orchestrator's side of statements: honest, unless told to withhold or to show what is old."""

    def __init__(self, identity: Signer, notary: Signer) -> None:
        self.identity, self.notary = identity, notary
        self.standing: tuple[StationStatement, bytes] | None = None
        self.heads: bytes | None = None
        self.refused: list[str] = []
        self.put = 0
        self.away = False
        self.withholds_statements = False
        self.withholds_heads = False

    def put_statement(self, station: str, envelope: bytes) -> StatementAnswer:
        self._reach()
        self.put += 1
        offered = open_statement(envelope, self.identity.public_hex)
        if self.standing is not None:
            refused = held_against(self.standing[0], offered)
            if isinstance(refused, Refused):
                self.refused.append(refused.code.value)
                raise RefusedError(refused.code.value, "it contradicts what stands")
        self.standing = offered, envelope
        return self._answer()

    def get_statement(self, station: str) -> StatementAnswer:
        self._reach()
        if self.standing is None or self.withholds_statements:
            raise NotFoundError("nothing stated")
        return self._answer()

    def get_heads(self) -> bytes:
        self._reach()
        if self.heads is None or self.withholds_heads:
            raise NotFoundError("no heads")
        return self.heads

    def put_heads(self, envelope: bytes) -> None:
        self.heads = envelope

    def statements(self) -> StatedList:
        if self.standing is None:
            return StatedList(stations=())
        one = self.standing[0]
        entry = StatedEntry(station=one.station, epoch=one.epoch, sequence=one.sequence, statement=one.digest)
        return StatedList(stations=(entry,))

    def _answer(self) -> StatementAnswer:
        assert self.standing is not None
        statement, envelope = self.standing
        return StatementAnswer(
            statement=envelope.decode(),
            receipt=sign_receipt(statement, self.notary, statement.time).decode(),
            notary_key=self.notary.public_hex,
        )

    def _reach(self) -> None:
        if self.away:
            raise NetworkError("the orchestrator does not answer")


class WitnessedStation(StationKit):
    """`StationKit` with statements."""

    identity: Signer
    registrar: Registrar
    records: Records
    messenger: Messenger
    reconciler: Reconciler

    @classmethod
    def witnessed(cls, folder: Path, **options: Any) -> "WitnessedStation":
        """A station whose register names its real identity key; nothing was stated yet."""
        kit = cls.make(folder, **options)
        assert isinstance(kit, cls)
        for name in ("identity", "notary"):
            generate_key(folder / "keys" / f"{name}.pem")
        kit.identity = load_signer(folder / "keys" / "identity.pem")
        kit.registrar = Registrar(kit.identity, load_signer(folder / "keys" / "notary.pem"))
        document = yaml.safe_load(register_yaml(2, *STATIONS))
        document["stations"][0]["identity_key"] = kit.identity.public_hex
        register = kit.board.signed(yaml.safe_dump(document).encode(), payload_type=REGISTER_PAYLOAD_TYPE)
        kit.board.repository.set_register(register)
        kit.policy_is_fresh()
        kit.again()
        return kit

    def open(self) -> None:
        super().open()
        if not hasattr(self, "identity"):
            return
        parts = Parts(
            STATION, self.database, self.audit, self.ledger,
            Usage(self.runs.runs_started_in, self.releases.releases_used_in), self.identity, self.clock, LIMIT,
        )  # fmt: skip
        self.records = Records(parts)
        self.reconciler = Reconciler(self.records, parts, self.runs)
        self.gatekeeper._records = self.records
        self.messenger = Messenger(
            self.records, self.database,
            Post(
                STATION, self.registrar, lambda: self.gatekeeper.policy_set(fresh=False),
                StatementSettings(every_s=1.0, after_release_s=0.1), lambda: None,
            ),
        )  # fmt: skip

    def again(self) -> None:
        super().again()
        self.messenger.look()

    # -- what happens outside --------------------------------------------------------------------------------

    def stated(self) -> StationStatement:
        """One statement, sent now whatever is due."""
        self.messenger._send()
        assert self.registrar.standing is not None
        return self.registrar.standing[0]

    def vouch(self) -> StationHeads:
        """The witness looks at the orchestrator, and the station at the witness."""
        folder = self.board.repository.folder
        HeadsWitness(folder, self.board.keys["witness"]).vouch_once(self.registrar, self.clock())
        assert self.registrar.heads is not None
        self.look_at_heads()
        return open_heads(self.registrar.heads, frozenset({self.board.keys["witness"].public_hex}))

    def look_at_heads(self) -> None:
        """What `look` does when the document is due."""
        from policies.refusals import Permitted

        policies = self.gatekeeper.policy_set(fresh=True)
        assert isinstance(policies, Permitted), policies
        self.records.note_trust(policies.value)
        self.messenger._fetch_heads(policies.value)

    # -- backups ---------------------------------------------------------------------------------------------

    def back_up(self, to: Path) -> Path:
        """Copy the station's home, as a backup of the stopped station does."""
        self._stop()
        shutil.copytree(self.folder / "home", to / "home")
        self.again()
        return to

    def restore(self, backup: Path) -> None:
        """Put the backup in the place of what is there, and start."""
        self._stop()
        shutil.rmtree(self.folder / "home")
        shutil.copytree(backup / "home", self.folder / "home")
        self.again()

    def _stop(self) -> None:
        for session in self.sandbox.running:
            session.killed.set()
        self.warm.close()
        self.database.close()

    def reconcile(self) -> PlanView:
        """What the operator's command does."""
        desk = ContinuityDesk(self.database, self.records, self.messenger, self.reconciler, self.gatekeeper)
        return desk.reconcile("operator:j.smit")

    def import_consent(self) -> None:
        """A consent register that was read at its source just now."""
        self.intake.consent(source=self.clock(), p0="consent")
        self.catalogue.sync()
        self.records.look()
