"""A catalogue entry that points elsewhere gives nothing: links, pipes and folders are not read."""

import os
from pathlib import Path

import pytest
from cohort_files import DEFINITION, KEY, case

from policies.refusals import RefusalCode, Refused
from station.cohorts import SourceFile, Unusable, freeze
from station.cohorts.decoding import DecoderPool


def link(good: Path, place: Path) -> None:
    place.symlink_to(good)


def pipe(good: Path, place: Path) -> None:
    os.mkfifo(place)


def folder(good: Path, place: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize("make", [link, pipe, folder])
def test_it_is_left_out(tmp_path: Path, make: object) -> None:
    assert callable(make)
    good = case(tmp_path, 1)
    place = tmp_path / "place.dcm"
    make(good.files[0].path, place)
    with DecoderPool(size=1) as pool:
        assert list(pool.decode_all([("k", SourceFile(place, good.files[0].digest))])) == [
            ("k", Unusable.UNREADABLE)
        ]


def test_a_file_that_was_changed_after_it_was_catalogued_is_left_out(tmp_path: Path) -> None:
    sources = [case(tmp_path, number) for number in range(12)]
    for source in sources:
        path = source.files[0].path
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    refused = freeze(DEFINITION, sources, tmp_path / "out", KEY)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.DATA_TOO_FEW_PATIENTS
