"""What `pht-board review` finds in an image: packages, licences, settings, and the files that are the train's own."""

import base64
import hashlib
import json
import tarfile
from pathlib import Path

import pytest
from reading_kit import SITE, Entry, debian_layer, distribution, files, pack, tar

from policies.board.contents import packages
from policies.board.contents.describing import attention_of, sections_of
from policies.board.contents.licences import Family, debian_licences, family_of
from policies.board.contents.packages import Origin
from policies.board.contents.report import (
    ImageContents,
    ImageFile,
    layers_named_in,
    open_bundle,
    read_contents,
)
from policies.cli import app
from policies.console import run
from policies.errors import DocumentError, ExitCode, TrustError


def contents(folder: Path, *layers: bytes, **config: object) -> ImageContents:
    return read_contents(open_bundle(pack(folder, layers, config=config)))


def file(found: ImageContents, path: str) -> ImageFile:
    (there,) = (each for each in found.files if each.path == path)
    return there


def attention(found: ImageContents) -> str:
    return "\n".join(attention_of(found))


def recorded(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(data)}\n"


def test_debian_packages_with_the_licences_of_their_copyright_files(tmp_path: Path) -> None:
    found = contents(tmp_path, debian_layer())
    assert [(each.name, each.version, each.family) for each in found.packages] == [
        ("bash", "5.2.15-2", Family.COPYLEFT),
        ("libgcc-s1", "12.2.0-14", Family.UNKNOWN),
    ]
    assert found.packages[0].licence == "GPL-3+, Expat"


def test_a_copyright_file_is_read_once_however_many_packages_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(packages, "debian_licences", lambda data: (read.append(data), ("Expat",))[1])
    names = [f"p{number}" for number in range(200)]
    links = [
        Entry(f"usr/share/doc/{name}", kind=tarfile.SYMTYPE, link="/usr/share/doc/all") for name in names
    ]
    found = contents(
        tmp_path,
        tar(
            Entry("usr/share/doc/all/copyright", b"License: Expat\n"),
            *links,
            *(
                Entry(f"var/lib/dpkg/status.d/{name}", f"Package: {name}\nVersion: 1\n".encode())
                for name in names
            ),
        ),
    )
    assert {each.licence for each in found.packages} == {"Expat"}
    assert (len(found.packages), len(read)) == (200, 1)


def test_packages_are_counted_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(packages, "MAX_PACKAGES", 5)
    monkeypatch.setattr(packages, "debian_licences", lambda data: (read.append(data), ("Expat",))[1])
    names = [f"p{number}" for number in range(40)]
    lists = [
        "".join(f"Package: {name}\nVersion: 1\n\n" for name in names[at : at + 4]) for at in range(0, 40, 4)
    ]
    found = contents(
        tmp_path,
        tar(
            *(Entry(f"usr/share/doc/{name}/copyright", name.encode()) for name in names),
            *(Entry(f"var/lib/dpkg/status.d/{at}", text.encode()) for at, text in enumerate(lists)),
            *(entry for name in names for entry in distribution(name, "1", "License: MIT")),
        ),
    )
    assert (len(found.packages), len(read)) == (5, 5)


def test_debian_files_are_found_through_the_merged_bin(tmp_path: Path) -> None:
    found = contents(tmp_path, debian_layer())
    assert file(found, "usr/bin/bash").origin is Origin.DEBIAN
    assert file(found, "usr/bin/su").marks[0] == "setuid"
    # What Debian itself installs with setuid is no point to look at: nothing of it can be used by a train.
    assert "setuid" not in attention(found)


@pytest.mark.parametrize(
    ("licence", "shown", "family"),
    [
        ("License-Expression: MIT", "MIT", Family.PERMISSIVE),
        ("License: LGPL-2.1", "LGPL-2.1", Family.WEAK_COPYLEFT),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License", Family.PERMISSIVE),
        ("License: see LICENSE\nClassifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
         "GNU General Public License v3 (GPLv3)", Family.COPYLEFT),
        ("License: CC-BY-NC-4.0", "CC-BY-NC-4.0", Family.RESTRICTED),
        ("Summary: no licence", "", Family.UNKNOWN),
    ],
)  # fmt: skip
def test_python_distributions_with_their_licences(
    tmp_path: Path, licence: str, shown: str, family: Family
) -> None:
    (package,) = contents(tmp_path, tar(*distribution("thing", "1.2", licence))).packages
    assert (package.name, package.version, package.licence, package.family) == ("thing", "1.2", shown, family)
    assert package.place == SITE
    named = f"Licence {family}: thing." in attention(
        contents(tmp_path / "b", tar(*distribution("thing", "1.2", licence)))
    )
    assert named is (family is not Family.PERMISSIVE)


def test_licence_families() -> None:
    assert family_of("Apache-2.0 AND GPL-3.0-or-later") is Family.COPYLEFT
    assert family_of("GPL-2.0-only OR MIT") is Family.PERMISSIVE
    assert family_of("GPL-3.0-with-GCC-exception") is Family.WEAK_COPYLEFT
    assert family_of("") is Family.UNKNOWN
    assert debian_licences(b"This package was debianized by somebody.") is None


def test_files_as_their_package_installed_them_and_altered_ones(tmp_path: Path) -> None:
    honest, other = b"print('as it was')\n", b"print('as it was not')\n"
    record = recorded("thing/a.py", honest) + recorded("thing/b.py", honest) + "thing/a.pyc,,\n"
    layer = tar(
        *distribution("thing", "1", "License: MIT", record),
        Entry(f"{SITE}/thing/a.py", honest),
        Entry(f"{SITE}/thing/b.py", other),
        Entry(f"{SITE}/thing/a.pyc", b"\0\0\0\0"),
        Entry(f"{SITE}/mine.py", honest),
    )
    found = contents(tmp_path, layer)
    origins = {each.path.removeprefix(SITE): each.origin for each in found.files}
    assert (origins["/thing/a.py"], origins["/thing/b.py"]) == (Origin.PYTHON, Origin.ALTERED)
    assert (origins["/thing/a.pyc"], origins["/mine.py"]) == (Origin.UNCHECKED, Origin.OWN)
    assert f"Files other than the package installed them: {SITE}/thing/b.py." in attention(found)
    assert file(found, f"{SITE}/mine.py").digest == "sha256:" + hashlib.sha256(honest).hexdigest()


def test_a_compiled_file_that_a_later_layer_puts_in_place_is_not_the_packages(tmp_path: Path) -> None:
    """Python runs it in place of the source, and nothing has a digest to hold it to."""
    installed = tar(
        *distribution("thing", "1", "License: MIT", "thing/a.pyc,,\n"), Entry(f"{SITE}/thing/a.pyc", b"then")
    )
    found = contents(tmp_path, installed, tar(Entry(f"{SITE}/thing/a.pyc", b"now")))
    assert file(found, f"{SITE}/thing/a.pyc").origin is Origin.OWN
    assert f"take the place of a lower layer's: {SITE}/thing/a.pyc." in attention(found)


def test_points_to_look_at_in_a_trains_own_files(tmp_path: Path) -> None:
    found = contents(
        tmp_path,
        debian_layer(),
        tar(
            Entry("usr/bin/bash", b"#!/bin/evil", 0o755),
            Entry("opt/root", b"\x7fELF", 0o6755),
            Entry("opt/raw", b"x", pax={"SCHILY.xattr.security.capability": "\x01"}),
            Entry("opt/disk", kind=tarfile.BLKTYPE),
            Entry("dev/null", kind=tarfile.CHRTYPE),
            Entry(f"{SITE}/start.pth", b"import os"),
            Entry("etc/ld.so.preload", b"/opt/lib.so"),
            Entry("opt/patient.bin", bytes(128) + b"DICM"),
            Entry("opt/model.safetensors", b"weights"),
            Entry("opt/cases.pkl", b"\x80\x04."),
            Entry("opt/inside.zip", b"PK\x03\x04"),
            Entry("opt/hidden.pyc", b"code"),
            Entry("root/notes", b"x"),
        ),
    )
    said = attention(found)
    for point in (
        "capabilities (a station starts nothing with them): opt/raw, opt/root.",
        "devices or pipes: opt/disk.",
        "when Python or a program starts: etc/ld.so.preload, opt/train/lib/python3.11/site-packages/start.pth.",
        "take the place of a lower layer's: usr/bin/bash.",
        "whose are they?: opt/patient.bin.",
        "not with an order: opt/model.safetensors.",
        "reading them runs code: opt/cases.pkl.",
        "was not looked at: opt/inside.zip.",
        "nobody reads these: opt/root.",
        "without its source: opt/hidden.pyc.",
        "outside the places that trains use: dev/null, etc/ld.so.preload, root/notes and 1 more.",
    ):
        assert point in said, point


def test_kinds_of_packages_that_are_not_listed_are_named(tmp_path: Path) -> None:
    found = contents(tmp_path, files(opt__conda__conda_meta__x_d_json="{}", lib__apk__db__installed="P:musl"))
    assert found.packages_not_read == ("Alpine packages",)
    found = contents(tmp_path / "b", tar(Entry("opt/conda/conda-meta/numpy.json", b"{}")))
    assert "The image holds conda packages: these are not listed here." in attention(found)


def test_settings_and_what_a_station_makes_of_them(tmp_path: Path) -> None:
    config = {
        "Entrypoint": ["/bin/sh", "-c", "evil"],
        "Env": ["SECRET=x"],
        "User": "root",
        "Volumes": {"/data": {}},
    }
    found = contents(tmp_path, files(a="x"), config=config, history="not a list")
    text = [line for section in sections_of(found) for line in section.lines]
    assert "Entrypoint: /bin/sh -c evil. Command: none." in text
    assert {"Environment: SECRET. Labels: 0.", "Volumes: {'/data': {}}", "User: root. Folder: /."} <= set(
        text
    )
    assert any(
        line.startswith("The station sets entrypoint, command, user and environment itself") for line in text
    )


def test_layers_of_the_base_are_known_and_their_files_not_listed(tmp_path: Path) -> None:
    base, own = debian_layer(), tar(Entry("opt/mine.py", b"1"))
    bundle = pack(tmp_path / "train", [base, own])
    known = dict.fromkeys(layers_named_in(pack(tmp_path / "base", [base])), "base")
    found = read_contents(open_bundle(bundle, known))
    assert [layer.known for layer in found.layers] == ["base", ""]
    assert (found.known_bytes, found.size) == (len(base), len(base) + len(own))
    assert [each.path for each in found.files] == ["opt/mine.py"]
    assert [each.name for each in found.packages] == ["bash", "libgcc-s1"]


def test_known_layers_may_be_named_by_a_config_or_by_docker(tmp_path: Path) -> None:
    layers = ["sha256:" + "1" * 64]
    (tmp_path / "config.json").write_text(json.dumps({"rootfs": {"diff_ids": layers}}))
    (tmp_path / "inspect.json").write_text(json.dumps([{"RootFS": {"Type": "layers", "Layers": layers}}]))
    (tmp_path / "other.json").write_text("{}")
    assert (
        layers_named_in(tmp_path / "config.json") == layers_named_in(tmp_path / "inspect.json") == set(layers)
    )
    with pytest.raises(DocumentError, match="names no layers"):
        layers_named_in(tmp_path / "other.json")


def test_a_layer_whose_bytes_changed_is_not_described(tmp_path: Path) -> None:
    bundle = pack(tmp_path, [files(a="honest")])
    opened = open_bundle(bundle)
    path = opened.blobs.path(opened.index.layers[0].digest)
    path.chmod(0o644)
    path.write_bytes(files(a="altered"))
    with pytest.raises(TrustError, match="holds other bytes"):
        read_contents(opened)


def test_a_config_that_names_other_layers_is_not_described(tmp_path: Path) -> None:
    bundle = pack(tmp_path, [files(a="x")], config={"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}})
    with pytest.raises(TrustError, match="not the ones that the image's config names"):
        open_bundle(bundle)


def test_the_text_is_bounded_and_the_json_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = [Entry(f"opt/file-{number:04}.py", b"1") for number in range(500)]
    bundle = pack(
        tmp_path, [tar(*many, *(each for n in range(200) for each in distribution(f"d{n}", "1", "")))]
    )
    assert run(app, ["review", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 200
    assert "more (--json has them all)" in text
    assert run(app, ["review", str(bundle), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["contents"]
    assert (len(whole["files"]), len(whole["packages"])) == (900, 200)


def test_names_cannot_write_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = pack(
        tmp_path,
        [
            tar(
                Entry("opt/\x1b[2Jclear\nTo look at\n  nothing", b"x"),
                *distribution("\x1b]0;own\x07", "1", "License: \x9b2J"),
            )
        ],
    )
    assert run(app, ["review", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert text.count("\nTo look at\n") == 1
    assert "with names that a terminal does not show as they are" in text


def test_names_that_are_no_text_come_out_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = [Entry("opt/\udcff", b"one"), Entry("opt/\\xff", b"two")]
    bundle = pack(tmp_path, [tar(*strange, form=tarfile.GNU_FORMAT)])
    assert run(app, ["review", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["contents"]["files"]
    assert [(each["path"], each["size"]) for each in found] == [("opt/\\xff", 3), ("opt/\\xff", 3)]
    assert {each["digest"] for each in found} == {
        "sha256:" + hashlib.sha256(data).hexdigest() for data in (b"one", b"two")
    }


def test_layers_to_compare_with_need_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = pack(tmp_path, [files(a="x")])
    code = run(app, ["review", str(bundle / "train.yaml"), "--base", str(bundle)])
    assert code == ExitCode.USAGE
    assert "are for a packed bundle" in capsys.readouterr().err
