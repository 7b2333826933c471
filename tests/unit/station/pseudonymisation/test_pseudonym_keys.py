import base64
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pseudonym_files import NOW, fixed_key, make_key

from policies.errors import StateError, StorageError
from station.pseudonymisation.keys import PseudonymKey


def test_a_key_is_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    made = PseudonymKey.generate(path, now=NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    read = PseudonymKey.load(path)
    assert (read.key_id, read.version) == (made.key_id, 1)
    assert read.for_project("a").pseudonym("", "1") == made.for_project("a").pseudonym("", "1")
    with pytest.raises(StorageError):
        PseudonymKey.generate(path, now=NOW)
    assert PseudonymKey.load(path).key_id == made.key_id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    make_key(tmp_path)
    path = tmp_path / "pseudonym.key"
    path.chmod(mode)
    with pytest.raises(StateError, match="others may read"):
        PseudonymKey.load(path)


def test_a_link_or_a_missing_key_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path)
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "pseudonym.key")
    for path in (link, tmp_path / "absent.key"):
        with pytest.raises(StateError, match="cannot be opened"):
            PseudonymKey.load(path)


def test_a_damaged_key_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    make_key(tmp_path)
    path = tmp_path / "pseudonym.key"
    text = path.read_text()
    secret = text.split('"secret":"')[1].split('"')[0]
    for damaged in (
        text.replace(secret, "A" * 43 + "="),
        text.replace(secret, secret[:-5] + "!!!!="),
        "",
        "{}",
    ):
        path.write_text(damaged)
        with pytest.raises(StateError) as caught:
            PseudonymKey.load(path)
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert all(secret[:20] not in repr(error) for error in chain)
        assert caught.value.__cause__ is None


def test_the_secret_is_in_no_repr(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    keys = key.for_project("registry")
    shown = f"{key!r} {key} {keys!r} {keys}"
    assert key.key_id in shown
    secrets = [key._secret, *(getattr(keys, each.name) for each in fields(keys))]
    assert [len(secret) for secret in secrets] == [32] * 4
    for secret in secrets:
        # The key's id is random hex too: what is looked for is the secret itself, as any of these would write it.
        written = (
            repr(secret)[2:-1],
            secret.hex(),
            base64.b64encode(secret).decode()[:42],
            str(list(secret)),
        )
        assert not [text for text in written if text in shown]


def test_pseudonyms_differ_between_projects_keys_issuers_and_versions(tmp_path: Path) -> None:
    key, other = make_key(tmp_path), make_key(tmp_path, "other.key")
    rotated = PseudonymKey(key.key_id, 2, key._secret)
    made = {
        key.for_project("one").pseudonym("A", "1"),
        key.for_project("two").pseudonym("A", "1"),
        other.for_project("one").pseudonym("A", "1"),
        rotated.for_project("one").pseudonym("A", "1"),
        key.for_project("one").pseudonym("B", "1"),
        key.for_project("one").pseudonym("", "A1"),
        key.for_project("one").pseudonym("A1", ""),
    }
    assert len(made) == 7
    assert all(len(name) == 21 and name[0] == "P" and name[1:].isalnum() and name.isupper() for name in made)


def test_the_derivation_does_not_change(tmp_path: Path) -> None:
    """Pseudonyms given out must come out again in every later version of this program."""
    keys = fixed_key(tmp_path).for_project("registry")
    assert keys.pseudonym("Amstelrijk", "3748755") == "PMBMWGM7UGQMM3ZRMXAUN"
    assert keys.remap_uid("1.2.3.4") == "2.25.247623831651776183098280575239803498513"
    shift = keys.shift("Amstelrijk", "3748755")
    assert (shift.days, shift.minutes) == (-364, -12)


@given(st.text(max_size=20), st.text(max_size=20))
def test_shifts_stay_in_their_window(issuer: str, patient: str) -> None:
    shift = PseudonymKey("0" * 16, 1, bytes(32)).for_project("registry").shift(issuer, patient)
    assert -365 <= shift.days <= -1
    assert -30 <= shift.minutes <= -1


@given(st.from_regex(r"\A[0-2](\.(0|[1-9][0-9]{0,8})){2,6}\Z"))
def test_uids_are_remapped_to_uids(uid: str) -> None:
    made = PseudonymKey("0" * 16, 1, bytes(32)).for_project("registry").remap_uid(uid)
    if uid.startswith("1.2.840.10008."):
        assert made == uid
    else:
        assert made.startswith("2.25.")
        assert len(made) <= 44
        assert int(made[5:]) < 2**128


def test_a_uid_that_only_begins_like_a_well_known_one_is_remapped(tmp_path: Path) -> None:
    keys = fixed_key(tmp_path).for_project("registry")
    assert keys.remap_uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"
    assert keys.remap_uid("1.2.840.100081.5").startswith("2.25.")


def test_a_key_file_is_owned_by_who_made_it(tmp_path: Path) -> None:
    make_key(tmp_path)
    assert (tmp_path / "pseudonym.key").stat().st_uid == os.geteuid()
