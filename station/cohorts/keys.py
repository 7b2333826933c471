"""The station's cohort key: which patient falls in which split, and what patients are called inside one train.

This key is compute's own. It is not the pseudonym key, which compute never sees; it maps project pseudonyms on to
train pseudonyms, one way. Losing it moves patients between splits, so it belongs in the station's backup.
"""

import base64
import hashlib
import hmac
import os
import random
import secrets
from pathlib import Path

from policies.errors import SettingsError, StorageError
from policies.splits import Split

KEY_BYTES = 32
_ID_BYTES = 10

# Cumulative upper bounds. Testing gets a quarter, so that hospitals of some 50 patients keep about a dozen there.
# Moving a bound moves patients from one split to another, over all trains: a station never changes it.
SPLIT_BOUNDS: tuple[tuple[Split, float], ...] = (
    (Split.TRAINING, 0.50),
    (Split.VALIDATION, 0.75),
    (Split.TESTING, 1.0),
)

DAY_S = 86_400
SHIFT_WINDOW_S = (DAY_S, 365 * DAY_S)
"""By how much dates and times are moved once more, per patient and train; stated in a cohort's description."""


def random_name(prefix: str, drawn: random.Random) -> str:
    """Return a name of the form that patients (p) and cases (c) have inside trains, of nobody."""
    return prefix + _name(drawn.randbytes(_ID_BYTES))


def _name(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()


class CohortKey:
    """32 secret bytes and the keyed maps made from them, each under a sub-key of its own (HMAC-SHA-256)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise SettingsError(f"cohort key: must hold {KEY_BYTES} bytes")
        self._secret = secret

    def __repr__(self) -> str:
        return "CohortKey(...)"

    @classmethod
    def generate(cls, path: Path) -> "CohortKey":
        """Write a fresh key, readable by its owner alone.

        Raises:
            StorageError: the file exists or cannot be written; a key is never overwritten.
        """
        secret = secrets.token_bytes(KEY_BYTES)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(descriptor)
        except FileExistsError as error:
            raise StorageError(
                "cohort key: the file exists and is not overwritten", hint="Move the old key away first."
            ) from error
        except OSError as error:
            raise StorageError(f"cohort key: cannot be written ({error.strerror})") from error
        return cls(secret)

    @classmethod
    def load(cls, path: Path) -> "CohortKey":
        """Read the key.

        Raises:
            SettingsError: the file is missing, has another length, or others may read it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                secret = file.read(KEY_BYTES + 1)
        except OSError as error:
            raise SettingsError(
                f"cohort key: cannot be read ({error.strerror})", hint="Run the station's init."
            ) from error
        if mode & 0o077:
            raise SettingsError("cohort key: others may read it", hint="Set its mode to 0600.")
        return cls(secret)

    def split_of(self, patient: str) -> Split:
        """Return a patient's split: the same over all trains and versions, whoever else is in the cohort."""
        position = int.from_bytes(self._mac("split", patient)[:8], "big") / 2**64
        return next(split for split, bound in SPLIT_BOUNDS if position < bound or bound == 1.0)

    def patient_id(self, scope: str, patient: str) -> str:
        """Return what a patient is called inside the train of `scope`."""
        return "p" + self._identifier("patient", scope, patient)

    def case_id(self, scope: str, case: str) -> str:
        """Return what an image is called inside the train of `scope`."""
        return "c" + self._identifier("case", scope, case)

    def shift_s(self, scope: str, patient: str) -> int:
        """Return by how many seconds a patient's moments lie earlier inside the train of `scope`: a day to a year."""
        drawn = int.from_bytes(
            hmac.digest(self._mac("shift", scope), patient.encode(), hashlib.sha256)[:8], "big"
        )
        return SHIFT_WINDOW_S[0] + drawn % (SHIFT_WINDOW_S[1] - SHIFT_WINDOW_S[0] + 1)

    def uid_key(self, scope: str) -> bytes:
        """Return the key under which UIDs are mapped inside the train of `scope`; of no use for any other."""
        return self._mac("uid", scope)

    def prediction_uid(self, order_digest: str, *of: str) -> str:
        """Return the UID of an object that the station makes of a train's answer; the same however often it is made."""
        drawn = hmac.digest(self._mac("prediction", order_digest), "\n".join(of).encode(), hashlib.sha256)[
            :16
        ]
        return f"2.25.{int.from_bytes(drawn, 'big')}"

    def sample_seed(self, order_digest: str, round_: int) -> bytes:
        """Return what decides who is scored in a round of an order; the same however often the round is asked."""
        return self._mac("sample", f"{order_digest}\n{round_}")

    def _identifier(self, purpose: str, scope: str, value: str) -> str:
        scoped = hmac.digest(self._mac(purpose, scope), value.encode(), hashlib.sha256)
        return _name(scoped[:_ID_BYTES])

    def _mac(self, purpose: str, value: str) -> bytes:
        subkey = hmac.digest(self._secret, f"pht-cohort-v1:{purpose}".encode(), hashlib.sha256)
        return hmac.digest(subkey, value.encode(), hashlib.sha256)
