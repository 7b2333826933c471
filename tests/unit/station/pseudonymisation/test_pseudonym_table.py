import re

from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR

from station.pseudonymisation.table import load_kept_text, load_table, rows_by_tag

DELIBERATELY_DIFFERENT = re.compile(r"[^a-z0-9]")


def plain(name: str) -> str:
    return DELIBERATELY_DIFFERENT.sub("", name.casefold())


def test_the_table_is_the_edition_it_says() -> None:
    source = load_table().source
    assert source.edition == "2026c"
    assert source.edition in source.subtitle
    assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)


def test_the_table_is_whole() -> None:
    rows = load_table().rows
    assert len(rows) == 656
    assert len(rows_by_tag()) == 652
    assert {row.tag for row in rows if "x" in row.tag} == {"50xx,xxxx", "60xx,3000", "60xx,4000", "odd,xxxx"}
    counts = {action: sum(row.basic == action for row in rows) for action in {row.basic for row in rows}}
    assert {str(action): count for action, count in counts.items()} == {
        "X": 416, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    assert sum(row.options.retain_modified_dates == "C" for row in rows) == 169


def test_names_and_tags_belong_together() -> None:
    strangers = [
        f"{tag:08x}"
        for tag, row in rows_by_tag().items()
        if dictionary_has_tag(tag) and plain(row.name) != plain(dictionary_description(tag))
    ]
    # Icon Image Sequence has "(see Note 11)" in its name.
    assert strangers == ["00880200"]
    assert sum(not dictionary_has_tag(tag) for tag in rows_by_tag()) == 25


def test_some_rows_against_the_page() -> None:
    rows = rows_by_tag()
    assert rows[0x00100010].basic == "Z"
    assert rows[0x00100020].basic == "Z/D"
    assert rows[0x0020000D].basic == "U"
    assert rows[0x00080080].basic == "X/Z/D"
    assert rows[0x00080020].options.retain_full_dates == "K"
    assert rows[0x00181000].options.retain_device_identity == "K"


def test_kept_attributes_are_what_they_are_called_and_not_in_the_table() -> None:
    kept = load_kept_text()
    for tag, reason in (*kept.text.items(), *kept.binary.items()):
        number = int(tag, 16)
        assert number not in rows_by_tag()
        assert plain(reason).startswith(plain(dictionary_description(number))), (
            tag,
            dictionary_description(number),
        )
    assert {dictionary_VR(int(tag, 16)) for tag in kept.text} <= {"LO", "SH"}
