"""The volume cache: what it gives is what was made, it stays under its ceiling, and it forgets when told."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_files import KEY, tree
from ct_files import CT_DEFINITION, ct_case, ct_cases

from station.cohorts import CaseSource, FrozenCohort, SourceFile, Unusable, VolumeCache, freeze
from station.cohorts.decoding import DecoderPool
from station.cohorts.volumes import Volume
from train_images.phantoms import CtFault


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(size=1) as pool:
        yield pool


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    return VolumeCache(tmp_path / "volumes")


def lay(cache: VolumeCache, case: CaseSource, path: Path, pool: DecoderPool) -> bytes:
    volume = cache.lay(case.files, path, pool)
    assert isinstance(volume, Volume)
    return path.read_bytes()


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def blind(case: CaseSource) -> CaseSource:
    """The same case with its files gone: it can come from the cache alone."""
    return replace(
        case, files=tuple(SourceFile(Path("/absent") / file.path.name, file.digest) for file in case.files)
    )


def test_the_second_time_no_slice_is_read(cache: VolumeCache, pool: DecoderPool, tmp_path: Path) -> None:
    case = ct_case(tmp_path, 0)
    first = lay(cache, case, tmp_path / "1.nii", pool)
    assert lay(cache, blind(case), tmp_path / "2.nii", pool) == first
    assert lay(cache, replace(blind(case), files=blind(case).files[::-1]), tmp_path / "3.nii", pool) == first
    assert cache.sources() == {file.digest for file in case.files}


def test_cohorts_are_the_same_with_and_without_and_their_copies_are_their_own(
    cache: VolumeCache, tmp_path: Path
) -> None:
    sources = ct_cases(tmp_path, 3)

    def frozen(out: str, cache: VolumeCache | None) -> FrozenCohort:
        result = freeze(CT_DEFINITION, sources, tmp_path / out, KEY, cache=cache)
        assert isinstance(result, FrozenCohort)
        return result

    plain, cold, warm = frozen("0", None), frozen("1", cache), frozen("2", cache)
    assert tree(plain.path) == tree(cold.path) == tree(warm.path)
    kept = {path.stat().st_ino for path in (tmp_path / "volumes").rglob("*.nii")}
    assert kept
    for cohort in (cold, warm):
        for path in (cohort.path / "images").iterdir():
            assert path.stat().st_ino not in kept
            assert path.stat().st_nlink == 1
            path.chmod(0o644)
            path.write_bytes(b"changed by a train")
    again = frozen("3", cache)
    assert again.digest == plain.digest


def test_files_are_for_their_owner_alone_and_hold_no_id(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path
) -> None:
    case = ct_case(tmp_path, 0)
    lay(cache, case, tmp_path / "1.nii", pool)
    for path in (tmp_path / "volumes", *(tmp_path / "volumes").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            for forbidden in (case.case, case.patient, case.study, case.files[0].path.name, str(tmp_path)):
                assert forbidden.encode() not in path.read_bytes()


def test_one_changed_byte_is_noticed_and_the_volume_made_anew(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path
) -> None:
    case = ct_case(tmp_path, 0)
    good = lay(cache, case, tmp_path / "1.nii", pool)
    (kept,) = (tmp_path / "volumes").rglob("*.nii")
    kept.write_bytes(kept.read_bytes()[:-1] + b"\x7f")
    assert lay(cache, case, tmp_path / "2.nii", pool) == good
    assert lay(cache, blind(case), tmp_path / "3.nii", pool) == good


def test_a_damaged_entry_is_none(cache: VolumeCache, pool: DecoderPool, tmp_path: Path) -> None:
    case = ct_case(tmp_path, 0)
    good = lay(cache, case, tmp_path / "1.nii", pool)
    (entry,) = (tmp_path / "volumes").rglob("entry.json")
    entry.write_bytes(b"{}")
    assert cache.sources() == frozenset()
    assert lay(cache, case, tmp_path / "2.nii", pool) == good
    assert cache.sweep() == 1
    assert entries(tmp_path / "volumes") == []


def test_what_is_purged_is_gone_and_not_put_back(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path
) -> None:
    gone, stays = ct_case(tmp_path, 0), ct_case(tmp_path, 1)
    for number, case in enumerate((gone, stays)):
        lay(cache, case, tmp_path / f"{number}.nii", pool)
    assert gone.files[3].digest is not None
    assert cache.purge([gone.files[3].digest]) == 1
    assert cache.purge([gone.files[3].digest]) == 0
    assert cache.sources() == {file.digest for file in stays.files}
    # A freeze that had begun before the withdrawal ends after it.
    lay(cache, gone, tmp_path / "late.nii", pool)
    assert cache.sources() == {file.digest for file in stays.files}
    assert cache.lay(blind(gone).files, tmp_path / "no.nii", pool) is Unusable.UNREADABLE


def test_the_least_recently_used_goes_first_and_the_ceiling_holds(tmp_path: Path, pool: DecoderPool) -> None:
    cases = ct_cases(tmp_path, 4)
    size = len(lay(VolumeCache(tmp_path / "probe"), cases[0], tmp_path / "probe.nii", pool))
    cache = VolumeCache(tmp_path / "volumes", max_bytes=2 * size + 10)
    times = iter(range(100, 200))

    def use(case: CaseSource) -> None:
        before = set((tmp_path / "volumes").glob("*/entry.json"))
        moment = next(times)
        lay(cache, case, tmp_path / f"{moment}.nii", pool)
        after = set((tmp_path / "volumes").glob("*/entry.json"))
        touched = after - before or {max(after, key=lambda path: path.stat().st_mtime_ns)}
        for path in touched:
            os.utime(path, (moment, moment))

    use(cases[0])
    use(cases[1])
    use(blind(cases[0]))
    use(cases[2])
    held = cache.sources()
    assert {file.digest for file in (*cases[0].files, *cases[2].files)} == held
    tiny = VolumeCache(tmp_path / "tiny", max_bytes=size - 1)
    lay(tiny, cases[3], tmp_path / "tiny.nii", pool)
    assert entries(tmp_path / "tiny") == []


def test_what_an_interrupted_life_left_is_swept(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path
) -> None:
    lay(cache, ct_case(tmp_path, 0), tmp_path / "1.nii", pool)
    root = tmp_path / "volumes"
    (whole,) = entries(root)
    for name in (".making-0123", ".gone-0123", "0" * 64):
        (root / name).mkdir()
        (root / name / "volume.nii").write_bytes(b"half")
    (root / "stray").write_bytes(b"")
    assert cache.sweep() == 4
    assert entries(root) == [whole]
    assert cache.sweep() == 0


def test_series_without_digests_and_series_that_are_no_volume_are_not_kept(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path
) -> None:
    plain = ct_case(tmp_path, 0)
    unvouched = replace(plain, files=tuple(SourceFile(file.path) for file in plain.files))
    lay(cache, unvouched, tmp_path / "1.nii", pool)
    bad = ct_case(tmp_path, 1, fault=CtFault.GAP)
    assert cache.lay(bad.files, tmp_path / "2.nii", pool) is Unusable.GAP
    assert entries(tmp_path / "volumes") == []
    assert not (tmp_path / "2.nii").exists()


def test_a_cache_that_cannot_be_written_costs_time_and_no_cohort(
    cache: VolumeCache, pool: DecoderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ct_case(tmp_path, 0)
    # A plain file where a folder should be made stops root as well as anybody.
    monkeypatch.setattr("station.cohorts.cache.secrets.token_hex", lambda _: "taken")
    (tmp_path / "volumes" / ".making-taken").write_bytes(b"")
    assert len(lay(cache, case, tmp_path / "1.nii", pool)) > 352


def test_many_at_once_make_one_entry(cache: VolumeCache, tmp_path: Path) -> None:
    case = ct_case(tmp_path, 0)
    results: list[bytes] = []

    def one(number: int) -> None:
        with DecoderPool(size=1) as pool:
            results.append(lay(cache, case, tmp_path / f"{number}.nii", pool))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    assert len(set(results)) == 1
    assert len(entries(tmp_path / "volumes")) == 1
