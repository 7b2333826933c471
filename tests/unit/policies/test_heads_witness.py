"""The witness's memory of stations, against an orchestrator that shows what it likes."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from board_kit import NOW, BoardKit, register_yaml
from statement_kit import digest, statement

from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.errors import NetworkError, NotFoundError, RefusedError, StateError, TrustError
from policies.signing import Signer, generate_key, load_signer
from policies.station_heads import StationHeads, open_heads
from policies.station_statement import (
    ChainEnd,
    EntryRange,
    Restoration,
    StatedEntry,
    StatedList,
    StatementAnswer,
    StationStatement,
    sign_statement,
)
from policies.trust.heads_witness import MAX_FORKS_OF_ONE, MAX_RESTORATIONS_OF_ONE, HeadsWitness


class Orchestrator:
    """Shows what a test puts into it: honest or not."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[StationStatement, bytes]] = {}
        self.sent: list[bytes] = []
        self.withholds: set[str] = set()

    def show(self, stated: StationStatement, signer: Signer, station: str | None = None) -> None:
        self.shown[station or stated.station] = (stated, sign_statement(stated, signer))

    def statements(self) -> StatedList:
        return StatedList(
            stations=tuple(
                StatedEntry(station=name, epoch=one.epoch, sequence=one.sequence, statement=one.digest)
                for name, (one, _) in sorted(self.shown.items())
            )
        )

    def get_statement(self, station: str) -> StatementAnswer:
        if station in self.withholds:
            raise NetworkError("the orchestrator does not answer")
        if station not in self.shown:
            raise NotFoundError("nothing stated")
        return StatementAnswer(statement=self.shown[station][1].decode(), receipt="{}", notary_key="ab" * 32)

    def put_heads(self, envelope: bytes) -> None:
        self.sent.append(envelope)


class Place:
    """A board whose register names two stations with real keys, its witness, and an orchestrator."""

    def __init__(self, folder: Path) -> None:
        self.board = BoardKit.found(folder)
        self.folder = folder
        self.keys = {}
        for name in ("amstel", "berkel", "new"):
            generate_key(folder / "stations" / f"{name}.pem")
            self.keys[name] = load_signer(folder / "stations" / f"{name}.pem")
        self.orchestrator = Orchestrator()
        self.register()

    def register(self, version: int = 1, **keys: Signer) -> None:
        document = yaml.safe_load(register_yaml(version))
        for station in document["stations"]:
            station["identity_key"] = (self.keys | keys)[station["name"]].public_hex
        envelope = self.board.signed(yaml.safe_dump(document).encode(), payload_type=REGISTER_PAYLOAD_TYPE)
        self.board.repository.set_register(envelope)
        self.board.publish()

    def vouch(self, minutes: int = 0) -> StationHeads:
        # A new object each time: what counts is on disk.
        witness = HeadsWitness(self.board.repository.folder, self.board.keys["witness"])
        heads = witness.vouch_once(self.orchestrator, NOW + timedelta(minutes=minutes))
        assert (
            open_heads(self.orchestrator.sent[-1], frozenset({self.board.keys["witness"].public_hex}))
            == heads
        )
        return heads

    def show(self, stated: StationStatement) -> None:
        self.orchestrator.show(stated, self.keys[stated.station])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_station_s_newest_statement_is_witnessed(place: Place) -> None:
    assert place.vouch().stations == ()
    place.show(statement(3))
    place.show(statement(8, station="berkel"))
    heads = place.vouch(1)
    assert [(one.station, one.sequence, one.statement) for one in heads.stations] == [
        ("amstel", 3, statement(3).digest),
        ("berkel", 8, statement(8, station="berkel").digest),
    ]
    place.show(statement(4))
    later = place.vouch(2)
    (amstel, berkel) = later.stations
    assert (amstel.sequence, amstel.seen) == (4, NOW + timedelta(minutes=2))
    assert (berkel.sequence, berkel.seen) == (8, NOW + timedelta(minutes=1))
    assert later.forks == ()


def test_an_orchestrator_can_withhold_and_nothing_else(place: Place) -> None:
    place.show(statement(3))
    place.vouch()
    place.orchestrator.show(statement(9), place.keys["berkel"])
    assert place.vouch().stations[0].sequence == 3, "signed by another"
    place.orchestrator.show(statement(9, station="berkel"), place.keys["amstel"], station="amstel")
    assert place.vouch().stations[0].sequence == 3, "of another station"
    place.show(statement(9))
    place.orchestrator.withholds = {"amstel"}
    place.show(statement(1, station="berkel"))
    assert [one.sequence for one in place.vouch().stations] == [3, 1], "one withheld holds up no other"
    place.orchestrator.shown.clear()
    assert [one.sequence for one in place.vouch().stations] == [3, 1], "what was seen stays"


def test_what_goes_back_or_forks_is_kept_and_told_and_never_believed(place: Place) -> None:
    place.show(statement(5))
    place.vouch()
    for contradiction, code in (
        (statement(4), "STATEMENT_ROLLBACK"),
        (statement(5, audit=ChainEnd(seq=50, digest=digest(7))), "STATEMENT_FORK"),
    ):
        place.show(contradiction)
        heads = place.vouch()
        assert heads.stations[0].statement == statement(5).digest
        assert heads.forks[-1].code == code
        assert (heads.forks[-1].standing, heads.forks[-1].offered) == (
            statement(5).digest,
            contradiction.digest,
        )
        assert place.vouch().forks == heads.forks, "once"
    assert len(heads.forks) == 2
    memory = (place.board.repository.folder / "witness" / "heads.json").read_text("utf-8")
    assert place.orchestrator.shown["amstel"][1].decode().strip() in memory.replace('\\"', '"').replace(
        "\\n", "\n"
    )
    for number in range(MAX_FORKS_OF_ONE + 2):
        place.show(statement(5, egress=ChainEnd(seq=25, digest=digest(100 + number))))
        heads = place.vouch()
    assert len(heads.forks) == MAX_FORKS_OF_ONE, "bounded"
    place.show(statement(6))
    assert place.vouch().stations[0].sequence == 6


def test_a_restoration_is_told_as_one(place: Place) -> None:
    place.show(statement(5))
    place.vouch()
    restored = Restoration(
        epoch=1, sequence=7, statement=digest(7), lost_audit=EntryRange(first=21, last=70),
        lost_egress=EntryRange(first=11, last=35), reconciled=NOW,
    )  # fmt: skip
    after = statement(8, epoch=2, restored=restored, audit=ChainEnd(seq=24, digest=digest(9)))
    place.show(after)
    heads = place.vouch()
    assert heads.forks == ()
    assert [(one.station, one.epoch, one.restored) for one in heads.restorations] == [("amstel", 2, restored)]
    place.show(statement(9, epoch=2, restored=restored, audit=ChainEnd(seq=30, digest=digest(9))))
    assert len(place.vouch().restorations) == 1
    place.show(statement(10))
    assert place.vouch().forks[-1].code == "STATEMENT_ROLLBACK", "the other copy"


def test_of_a_station_s_restorations_the_newest_are_handed_on(place: Place) -> None:
    before = statement(1)
    place.show(before)
    place.vouch()
    last = MAX_RESTORATIONS_OF_ONE + 3
    for epoch in range(2, last + 1):
        restored = Restoration(
            epoch=before.epoch, sequence=before.sequence, statement=before.digest,
            lost_audit=EntryRange(first=21, last=70), lost_egress=EntryRange(first=11, last=35), reconciled=NOW,
        )  # fmt: skip
        before = statement(epoch, epoch=epoch, restored=restored)
        place.show(before)
        heads = place.vouch()
    assert heads.forks == ()
    epochs = [one.epoch for one in heads.restorations]
    assert epochs == list(range(last - MAX_RESTORATIONS_OF_ONE + 1, last + 1))


def test_another_key_in_the_register_begins_afresh(place: Place) -> None:
    place.show(statement(5))
    place.vouch()
    place.register(2, amstel=place.keys["new"])
    place.orchestrator.show(statement(1), place.keys["new"])
    assert place.vouch().stations[0].sequence == 1
    assert place.vouch().forks == ()


def test_a_damaged_memory_is_never_started_afresh(place: Place) -> None:
    place.show(statement(5))
    place.vouch()
    (place.board.repository.folder / "witness" / "heads.json").write_text("{")
    with pytest.raises(StateError):
        place.vouch()


def test_the_document_is_the_witness_s_alone(place: Place) -> None:
    place.vouch()
    with pytest.raises(TrustError):
        open_heads(place.orchestrator.sent[-1], frozenset({place.board.keys["secretary"].public_hex}))


def test_one_stations_odd_answer_stops_no_other(place: Place) -> None:
    class Odd(Orchestrator):
        def get_statement(self, station: str) -> StatementAnswer:
            if station == "amstel":
                raise RefusedError("STATEMENT_FORK", "whatever an orchestrator may answer")
            return super().get_statement(station)

    place.orchestrator = Odd()
    place.show(statement(1))
    place.show(statement(1, station="berkel"))
    assert [entry.station for entry in place.vouch().stations] == ["berkel"]
