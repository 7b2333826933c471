"""Where everything of a station lies, and who may read it.

    HOME/                 0711   root's (or the operator's); others may enter, not list
      station.toml        0644   the hospital's settings and rules
      run/                1770   sockets, tokens (0600) and the supervisor's lock; 0700 without separation
      logs/               0700   what the services print; the supervisor opens them
      intake/             0700   intake's alone: keys, spool, quarantine, consent register
      handover/           2750   written by intake, read by compute: pseudonymised files and the signed log
      compute/            0750   compute's: database (0600), cohorts, control sockets
        keys/, trust/, releases/, reviews/, work/, agent/, train-logs/, volumes/   0700
        layers/           0750   images by digest; the launcher reads them

`GROUP` is what the services' users share: it opens run/, handover/ and layers/, each to those who need it, and no key.

Knows paths and modes only.
"""

from dataclasses import dataclass
from pathlib import Path

GROUP = "pht-station"


@dataclass(frozen=True, slots=True)
class StationPaths:
    """The station's folders and files under its home."""

    home: Path

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.home / "station.toml"

    @property
    def card(self) -> Path:
        """What the board needs to register the station: name and public keys."""
        return self.home / "card.json"

    @property
    def run(self) -> Path:
        """Sockets, tokens, lock."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """What the services print."""
        return self.home / "logs"

    @property
    def api_socket(self) -> Path:
        """Where compute answers the operator."""
        return self.run / "api.sock"

    @property
    def api_token(self) -> Path:
        """What the operator shows."""
        return self.run / "api.token"

    @property
    def intake_socket(self) -> Path:
        """Where intake answers the operator."""
        return self.run / "intake.sock"

    @property
    def launcher_socket(self) -> Path:
        """Where the launcher answers compute."""
        return self.run / "launcher.sock"

    @property
    def handover(self) -> Path:
        """The one way from intake to compute."""
        return self.home / "handover"

    @property
    def compute(self) -> Path:
        """Compute's own folder."""
        return self.home / "compute"

    @property
    def database(self) -> Path:
        """Compute's database."""
        return self.compute / "station.db"

    @property
    def keys(self) -> Path:
        """Compute's keys; never a pseudonym key."""
        return self.compute / "keys"

    @property
    def node_key(self) -> Path:
        """EC key of the Flower node."""
        return self.keys / "node.pem"

    @property
    def identity_key(self) -> Path:
        """Ed25519 key that signs the station's card, profile and audit heads."""
        return self.keys / "identity.pem"

    @property
    def cohort_key(self) -> Path:
        """Keys the pseudonyms of each train and the splits."""
        return self.keys / "cohort.key"

    @property
    def handover_key(self) -> Path:
        """Public key that the handover's signatures are checked with, pinned at init."""
        return self.keys / "handover.pub"

    @property
    def trust(self) -> Path:
        """The pinned root and the last verified policy set."""
        return self.compute / "trust"

    @property
    def layers(self) -> Path:
        """Images by digest."""
        return self.compute / "layers"

    @property
    def cohorts(self) -> Path:
        """Frozen cohorts of running trains."""
        return self.compute / "cohorts"

    @property
    def volumes(self) -> Path:
        """CT volumes made before, for cohorts to come."""
        return self.compute / "volumes"

    @property
    def control(self) -> Path:
        """Control sockets, one folder per run."""
        return self.compute / "control"

    @property
    def releases(self) -> Path:
        """Released payloads, kept for replay."""
        return self.compute / "releases"

    @property
    def reviews(self) -> Path:
        """Released payloads that wait for a person."""
        return self.compute / "reviews"

    @property
    def work(self) -> Path:
        """Weights and replies on their way; emptied at start."""
        return self.compute / "work"

    @property
    def train_logs(self) -> Path:
        """What trains printed, bounded; for the operator alone."""
        return self.compute / "train-logs"

    @property
    def agent(self) -> Path:
        """The agent's durable spool."""
        return self.compute / "agent"
