"""A member's key lies about, readable by everyone on the machine."""

from pathlib import Path

import pytest

from policies.errors import TrustError
from policies.signing import generate_key, load_signer


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o601, 0o777])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    generate_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(TrustError, match="other users"):
        load_signer(tmp_path / "key.pem")
