"""Where intake keeps what it has, under the station's home."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class IntakePaths:
    """Intake's folders and files.

    HOME/intake (0700) is intake's alone and holds everything identified; HOME/handover is written by intake and
    read by compute; HOME/run holds the socket and the token with which the operator speaks to intake.

    Attributes:
        home: the station's home.
    """

    home: Path

    @property
    def root(self) -> Path:
        """Intake's own folder."""
        return self.home / "intake"

    @property
    def keys(self) -> Path:
        """The folder of the pseudonym key and the handover key, outside the data."""
        return self.root / "keys"

    @property
    def pseudonym_key(self) -> Path:
        """The hospital's pseudonym key."""
        return self.keys / "pseudonym.key"

    @property
    def handover_key(self) -> Path:
        """The private key that signs the handover log."""
        return self.keys / "handover.key"

    @property
    def spool(self) -> Path:
        """Batches that have arrived and are not yet pseudonymised."""
        return self.root / "spool"

    @property
    def quarantine(self) -> Path:
        """Files that could not be taken up, in a folder per reason."""
        return self.root / "quarantine"

    @property
    def labels(self) -> Path:
        """Masks that were sent and are not yet checked."""
        return self.root / "labels"

    @property
    def backups(self) -> Path:
        """Copies of intake's database that the operator made; they are as identified as it is."""
        return self.root / "backups"

    @property
    def database(self) -> Path:
        """Intake's database."""
        return self.root / "intake.db"

    @property
    def handover(self) -> Path:
        """The folder compute reads."""
        return self.home / "handover"

    @property
    def handover_public_key(self) -> Path:
        """The key with which compute verifies the handover."""
        return self.handover / "handover.pub"

    @property
    def card(self) -> Path:
        """The station's card: its identity key, which signs what the operator carries over from compute."""
        return self.home / "card.json"

    @property
    def run(self) -> Path:
        """Sockets and tokens."""
        return self.home / "run"

    @property
    def socket(self) -> Path:
        """Where intake answers the operator."""
        return self.run / "intake.sock"

    @property
    def token(self) -> Path:
        """What the operator shows intake."""
        return self.run / "intake.token"
