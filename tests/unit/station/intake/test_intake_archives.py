"""Archives: what is taken from a zip, and what refuses it whole."""

import stat
import zipfile
from pathlib import Path

import pytest
from intake_kit import image, zip_bytes, zip_of

from policies.errors import DataError, NotFoundError
from station.intake import spool
from station.intake.sources.archives import ArchiveError, ArchiveLimits, open_archive, stage_archive
from station.intake.spool import SourceKind


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir(mode=0o700)
    return made


def staged(place: Path, source: Path) -> tuple[list[bytes], int]:
    batch = stage_archive(place, source, "cxr")
    assert (batch.card.source, batch.card.collection) == (SourceKind.ARCHIVE, "cxr")
    files = [(place / batch.name / name).read_bytes() for name in spool.files_of(place, batch.name)]
    assert batch.card.files == len(files)
    return files, batch.card.skipped


LAYOUTS = {
    "ctp": ("1.2.3/1.2.3.4/image-{}.dcm", "1.2.3/__index.xml"),
    "xnat": (
        "Eva_1/scans/2-CHEST/resources/DICOM/files/{}.dcm",
        "Eva_1/scans/2-CHEST/resources/SNAPSHOTS/files/a.gif",
    ),
    "xnat-old": ("Eva_1/SCANS/2/DICOM/{}", "Eva_1/SCANS/2/DICOM/catalog.xml"),
    "media": ("DICOM/PAT0/STU0/IMG{}", "DICOMDIR"),
    "flat": ("{}", "readme.txt"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_dicom_files_are_taken_and_the_rest_is_skipped(
    place: Path, tmp_path: Path, layout: str, method: int
) -> None:
    name, other = LAYOUTS[layout]
    files = {name.format(number): image(number) for number in (1, 2)}
    index = image(3) if other == "DICOMDIR" else b"not an image"
    source = zip_of(tmp_path / "a.zip", files | {other: index}, method)
    assert staged(place, source) == (list(files.values()), 1)
    assert not [path for path in place.rglob("*") if "Eva" in path.name]


def test_links_and_archives_in_archives_stay_closed(place: Path, tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", {"1.dcm": image(1), "inner.zip": zip_bytes({"2.dcm": image(2)})})
    with zipfile.ZipFile(source, "a") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, bytes(128) + b"DICM/etc/passwd")
        archive.writestr(zipfile.ZipInfo("folder/"), b"")
    assert staged(place, source) == ([image(1)], 2)


@pytest.mark.parametrize(
    "name", ["../1.dcm", "a/../../1.dcm", "/etc/1.dcm", "..\\1.dcm", "C:\\1.dcm", "a/.."]
)
def test_an_entry_that_leaves_its_folder_refuses_the_archive(place: Path, tmp_path: Path, name: str) -> None:
    source = zip_of(tmp_path / "a.zip", {"0.dcm": image(0), name: image(1)})
    assert refused(place, source) == "archive-path-outside"


def test_an_encrypted_entry_refuses_the_archive(place: Path, tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", {"0.dcm": image(0)}, zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    data[6] |= 1
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    source.write_bytes(data)
    assert refused(place, source) == "archive-encrypted"


def test_bombs_are_refused_before_they_are_inflated(place: Path, tmp_path: Path) -> None:
    zeros = zip_of(tmp_path / "zeros.zip", {"0.dcm": bytes(128) + b"DICM" + bytes(64 << 20)})
    assert refused(place, zeros) == "archive-ratio"
    many = zip_of(tmp_path / "many.zip", {f"{number}.dcm": b"" for number in range(50)})
    assert refused(place, many, ArchiveLimits(entries=49)) == "archive-too-many-entries"
    assert refused(place, many, ArchiveLimits(entries=12)) == "archive-too-many-entries"
    some = zip_of(tmp_path / "some.zip", {f"{number}.dcm": image(number) for number in range(4)})
    assert refused(place, some, ArchiveLimits(total_bytes=3 * len(image(0)))) == "archive-too-large"
    assert refused(place, some, ArchiveLimits(file_bytes=len(image(0)) - 1)) == "archive-file-too-large"


def test_a_bomb_that_lies_about_its_size_is_cut_where_it_said_it_ends(place: Path, tmp_path: Path) -> None:
    body = bytes(128) + b"DICM" + bytes(1 << 20)
    source = zip_of(tmp_path / "a.zip", {"0.dcm": body})
    data = bytearray(source.read_bytes())
    central = data.index(b"PK\x01\x02")
    for place_of_size in (22, central + 24):
        data[place_of_size : place_of_size + 4] = (200).to_bytes(4, "little")
    source.write_bytes(data)
    assert refused(place, source) == "archive-damaged"


def test_entries_that_share_their_bytes_count_each(place: Path, tmp_path: Path) -> None:
    # A quoted-overlap bomb: a directory of many names for one compressed body.
    body = bytes(128) + b"DICM" + bytes(200_000)
    source = zip_of(tmp_path / "a.zip", {"0.dcm": body})
    data = source.read_bytes()
    central, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    header = data[central:end]
    count = 300
    tail = bytearray(data[end:])
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = (len(header) * count).to_bytes(4, "little")
    source.write_bytes(data[:central] + header * count + bytes(tail))
    assert refused(place, source) == "archive-ratio"


@pytest.mark.parametrize("cut", [1, 10, 40, 200, 600])
def test_a_damaged_archive_is_refused_whole(place: Path, tmp_path: Path, cut: int) -> None:
    source = zip_of(tmp_path / "a.zip", {f"{number}.dcm": image(number) for number in range(3)})
    data = source.read_bytes()
    source.write_bytes(data[:-cut])
    assert refused(place, source) == "archive-damaged"


def test_a_changed_byte_is_found_by_its_checksum(place: Path, tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", {"0.dcm": image(0), "1.dcm": image(1)}, zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    data[data.index(image(1)[200:]) + 5] ^= 1
    source.write_bytes(data)
    assert refused(place, source) == "archive-damaged"


def test_what_is_no_archive_is_refused(place: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.zip"
    text.write_bytes(b"Testpatient^Eva 3748755")
    assert refused(place, text) == "not-an-archive"
    link = tmp_path / "link.zip"
    link.symlink_to(zip_of(tmp_path / "b.zip", {"0.dcm": image(0)}))
    with pytest.raises(NotFoundError):
        stage_archive(place, link)
    with pytest.raises(DataError):
        stage_archive(place, zip_of(tmp_path / "c.zip", {"a.txt": b"nothing"}))
    assert list(place.iterdir()) == []


def test_a_reader_gets_each_file_from_its_first_byte(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", {"a/0.dcm": image(0), "a/x.txt": b"x", "b/1.dcm": image(1)})
    with open_archive(source) as archive:
        found = [(entry.number, entry.name, entry.file.read()) for entry in archive.dicom_files()]
        assert archive.skipped == 1
    assert found == [(0, "a/0.dcm", image(0)), (2, "b/1.dcm", image(1))]


def refused(place: Path, source: Path, limits: ArchiveLimits | None = None) -> str:
    with pytest.raises(ArchiveError) as caught:
        stage_archive(place, source, "cxr", limits or ArchiveLimits())
    assert list(place.iterdir()) == []
    assert caught.value.hint
    assert not [word for word in (source.name, "Testpatient", ".dcm") if word in str(caught.value)]
    error: BaseException | None = caught.value
    while error is not None:
        assert isinstance(error, ArchiveError)
        error = error.__context__
    return caught.value.reason.value
