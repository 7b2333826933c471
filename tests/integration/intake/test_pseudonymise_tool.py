"""`pht-station pseudonymise`: folders and zips, killed and resumed, damaged and hostile, and the mapping on its switch."""

import csv
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pseudonym_files import file_bytes, fixed_key, identified
from pydicom import dcmread

from policies.console import run
from policies.errors import ExitCode, StateError, UsageError
from station.cli import app
from station.intake.tool import audit_file, working
from station.intake.tool.journal import open_journal
from station.intake.tool.request import ToolRequest
from station.intake.tool.running import pseudonymise
from station.intake.tool.source_files import SourceFile
from station.pseudonymisation.options import DeidentificationOptions, Option

UID = "1.2.826.0.1.3680043.8.498.113"


def image(number: int, **elements: Any) -> bytes:
    values = {
        "SOPInstanceUID": f"{UID}.{number}",
        "PatientID": f"37487{number // 4}",
        "StudyInstanceUID": f"{UID}.1{number // 2}",
    }
    return file_bytes(identified(**{**values, **elements}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "Testpatient Eva"
    (folder / "sub").mkdir(parents=True)
    for number in range(1, 9):
        place = folder / "sub" if number % 2 else folder
        (place / f"Testpatient-{number}.dcm").write_bytes(image(number))
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    fixed_key(tmp_path / "keys", "pseudonym.key")
    return tmp_path / "keys" / "pseudonym.key"


def request_for(source: Path, key: Path, target: Path, **changes: Any) -> ToolRequest:
    return ToolRequest(source=source, target=target, key=key, **{"pixels": "off", **changes})


def outputs(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.glob("P*/*/*/*.dcm"))}


def everything(target: Path) -> bytes:
    return b"".join(
        path.relative_to(target).as_posix().encode() + b"\n" + path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    )


def test_a_folder(source: Path, key: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    report = pseudonymise(request_for(source, key, target, jobs=2))
    assert (report.files, report.written, report.failed, report.skipped) == (8, 8, {}, 0)
    assert (report.patients, report.studies) == (3, 5)
    made = outputs(target)
    assert len(made) == 8
    for name, data in made.items():
        dataset = dcmread(BytesIO(data))
        patient, study, series, instance = name.removesuffix(".dcm").split("/")
        assert (dataset.PatientID, dataset.StudyInstanceUID) == (patient, study)
        assert (dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == (series, instance)
    lowered = everything(target).lower()
    assert not [
        word for word in (b"testpatient", b"eva", b"37487", UID.encode(), b"3680043") if word in lowered
    ]
    assert json.loads((target / "report.json").read_text())["written"] == 8
    assert "Pseudonymised 8 of 8 files" in (target / "report.txt").read_text()


def test_a_zip_gives_the_same_as_its_folder(source: Path, key: Path, tmp_path: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(source.rglob("*.dcm")):
            zipped.write(path, path.relative_to(source))
        zipped.writestr("DICOMDIR", b"x")
        zipped.writestr("readme.txt", b"Testpatient")
    report = pseudonymise(request_for(archive, key, tmp_path / "a"))
    pseudonymise(request_for(source, key, tmp_path / "b"))
    assert (report.written, report.skipped) == (8, 2)
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")
    again = pseudonymise(request_for(archive, key, tmp_path / "a"))
    assert (again.written, again.resumed) == (8, 8)


@pytest.mark.parametrize("name", ["../escaped.dcm", "/tmp/escaped.dcm"])
def test_a_zip_that_leaves_its_folder_is_refused(key: Path, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("fine.dcm", image(1))
        zipped.writestr(name, image(2))
    code = run(
        app, ["pseudonymise", str(archive), str(tmp_path / "out"), "--key", str(key), "--pixels", "off"]
    )
    assert code == ExitCode.DATA
    assert outputs(tmp_path / "out") == {}


def test_a_zip_bomb_is_refused(key: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("1.dcm", bytes(1 << 26))
    assert run(app, ["pseudonymise", str(archive), str(tmp_path / "out"), "--key", str(key)]) == ExitCode.DATA


def test_what_has_no_output_is_told_by_its_reason(source: Path, key: Path, tmp_path: Path) -> None:
    (source / "text.dcm").write_text("Testpatient")
    (source / "cut.dcm").write_bytes(image(21)[:-3])
    (source / "no-patient.dcm").write_bytes(image(22, PatientID=None))
    (source / "capture.dcm").write_bytes(image(23, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))
    (source / "no-pixels.dcm").write_bytes(image(24, PixelData=None))
    (source / "large.dcm").write_bytes(image(25, PixelData=bytes(1 << 20)))
    (source / "DICOMDIR").write_bytes(b"x")
    (source / "link.dcm").symlink_to(source / "Testpatient-2.dcm")
    (source / "linked").symlink_to(tmp_path)
    os.mkfifo(source / "pipe.dcm")
    report = pseudonymise(request_for(source, key, tmp_path / "out", max_file_bytes=1 << 19))
    assert report.failed == {
        "not-dicom": 1, "unreadable": 1, "patient-id-missing": 1, "sop-class-not-accepted": 1, "pixels-missing": 1,
        "too-large": 1,
    }  # fmt: skip
    assert (report.written, report.skipped) == (8, 4)
    assert len(outputs(tmp_path / "out")) == 8


def test_the_same_instance_twice(source: Path, key: Path, tmp_path: Path) -> None:
    (source / "z-again.dcm").write_bytes(image(2))
    (source / "z-other.dcm").write_bytes(image(4, Rows=3, Columns=2))
    report = pseudonymise(request_for(source, key, tmp_path / "out", jobs=2))
    assert (report.written, report.duplicates, report.failed) == (8, 1, {"instance-conflict": 1})
    pseudonymise(request_for(source, key, tmp_path / "out"))
    assert len(outputs(tmp_path / "out")) == 8


def test_a_study_of_two_patients_has_no_output(source: Path, key: Path, tmp_path: Path) -> None:
    (source / "z.dcm").write_bytes(image(31, StudyInstanceUID=f"{UID}.11", PatientID="999"))
    report = pseudonymise(request_for(source, key, tmp_path / "out"))
    assert report.failed == {"study-patient-mismatch": 3}
    assert len(outputs(tmp_path / "out")) == report.written == 6


def kill_after(command: list[str], journal: Path, lines: int) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_at_any_moment_it_goes_on_and_does_nothing_twice(key: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"{number:03}.dcm").write_bytes(image(number, PixelData=bytes(20_000)))
    target = tmp_path / "out"
    program = [sys.executable, "-c", "from station.cli import main; main()"]
    command = [
        *program, "pseudonymise", str(source), str(target), "--key", str(key), "--jobs", "2", "--pixels", "off",
    ]  # fmt: skip
    journal = target / ".pseudonymised" / "journal.jsonl"
    # Long before the end, which a busy machine comes to before it looks again.
    for lines in (0, 1, 20, 60):
        kill_after(command, journal, lines)
    before = len(outputs(target))
    assert 0 < before < 300, "killed in the middle"
    # A line that was cut off in the middle, as a kill could leave it.
    with journal.open("ab") as file:
        file.write(b'["ab')
    stamps = {path: path.stat().st_mtime_ns for path in target.glob("P*/*/*/*.dcm")}
    report = pseudonymise(request_for(source, key, target, jobs=2))
    assert (report.files, report.written, report.failed) == (300, 300, {})
    assert report.resumed >= before - 1
    again = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert len(again) <= 1, "at most the one that stood without its line is made again"
    clean = tmp_path / "clean"
    pseudonymise(request_for(source, key, clean, jobs=2))
    assert outputs(target) == outputs(clean)


def test_an_output_that_was_lost_is_made_again(source: Path, key: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    pseudonymise(request_for(source, key, target))
    made = outputs(target)
    next(target.glob("P*/*/*/*.dcm")).unlink()
    report = pseudonymise(request_for(source, key, target))
    assert (report.written, report.resumed) == (8, 7)
    assert outputs(target) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"project": "other"},
        {"default_issuer": "X"},
        {"options": DeidentificationOptions(chosen=())},
        {"keep_faces": True},
    ],
)
def test_another_request_does_not_go_on(
    source: Path, key: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    pseudonymise(request_for(source, key, tmp_path / "out"))
    with pytest.raises(UsageError, match="begun with another"):
        pseudonymise(request_for(source, key, tmp_path / "out", **changes))


def test_source_output_key_and_mapping_are_kept_apart(source: Path, key: Path, tmp_path: Path) -> None:
    for target, mapping_to in [
        (source / "out", None), (source.parent, None), (tmp_path / "o1", tmp_path / "o1" / "map"),
        (tmp_path / "o2", source / "map"), (key.parent, None),
    ]:  # fmt: skip
        with pytest.raises(UsageError):
            pseudonymise(request_for(source, key, target, jobs=1), mapping_to)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        pseudonymise(request_for(source, key, tmp_path / "full"))


def test_two_at_once_on_one_folder(source: Path, key: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    pseudonymise(request_for(source, key, target))
    with (
        open_journal(target / ".pseudonymised" / "journal.jsonl"),
        pytest.raises(StateError, match="another process"),
    ):
        pseudonymise(request_for(source, key, target))


def rows(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id_old"]: row["id_new"] for row in csv.DictReader(file)}


def test_the_mapping_on_its_own_switch(source: Path, key: Path, tmp_path: Path) -> None:
    target, mapping_to = tmp_path / "out", tmp_path / "mapping"
    (source / "broken.dcm").write_text("x")
    pseudonymise(request_for(source, key, target, jobs=2))
    assert not mapping_to.exists()
    pseudonymise(request_for(source, key, target, jobs=2), mapping_to)
    assert stat.S_IMODE(mapping_to.stat().st_mode) == 0o700
    files = sorted(mapping_to.iterdir())
    assert [path.name for path in files] == ["patient_id_mapping.csv", "uid_mapping.csv"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    patients, uids = rows(files[0]), rows(files[1])
    assert set(patients) == {"374870", "374871", "374872"}
    assert set(patients.values()) == {name.split("/")[0] for name in outputs(target)}
    for number in range(1, 9):
        assert f"{uids[f'{UID}.1{number // 2}']}/" in " ".join(outputs(target))
        assert any(name.endswith(f"/{uids[f'{UID}.{number}']}.dcm") for name in outputs(target))
    assert not [uid for uid in uids if uid.startswith("1.2.840.10008.")]
    told = [json.loads(line) for line in audit_file.audit_path(key).read_text().splitlines()]
    assert [entry["event"] for entry in told].count("tool.mapping.written") == 1
    # Not but in a digest, where any number may stand by chance.
    assert not re.search(r"(?<![0-9a-f])37487[0-2]", audit_file.audit_path(key).read_text())


def test_a_mapping_is_audited_before_it_stands(source: Path, key: Path, tmp_path: Path) -> None:
    pseudonymise(request_for(source, key, tmp_path / "out"))
    audit = audit_file.audit_path(key)
    audit.write_bytes(audit.read_bytes().replace(b'"project":"registry"', b'"project":"another1"', 1))
    with pytest.raises(StateError, match="broken at entry"):
        pseudonymise(request_for(source, key, tmp_path / "out"), tmp_path / "mapping")
    assert not list((tmp_path / "mapping").iterdir())


def test_a_mapping_folder_that_others_may_read_is_refused(source: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "mapping").mkdir(mode=0o755)
    with pytest.raises(UsageError, match="yours alone"):
        pseudonymise(request_for(source, key, tmp_path / "out"), tmp_path / "mapping")


def _die_of_the_third(sources: list[SourceFile]) -> list[working.Made | working.NotMade]:
    for source in sources:
        if source.path.endswith("Testpatient-3.dcm"):
            os.kill(os.getpid(), signal.SIGSEGV)
    return working.make_all(sources)


def test_a_file_that_kills_its_worker_costs_that_one(
    source: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from station.intake.tool import running

    class Deadly:
        make_all = staticmethod(_die_of_the_third)

        def __getattr__(self, name: str) -> object:
            return getattr(working, name)

    monkeypatch.setattr(running, "working", Deadly())
    report = pseudonymise(request_for(source, key, tmp_path / "out", jobs=2))
    assert (report.written, report.failed) == (7, {"worker-died": 1})


def test_the_command(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "new.key"
    arguments = ["pseudonymise", str(source), str(tmp_path / "out"), "--key", str(key), "--pixels", "off"]
    assert run(app, arguments) == ExitCode.FAILURE, "no key yet"
    assert run(app, [*arguments, "--new-key", "--option", "clean-descriptors", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["codes"] == ["113100", "113105"]
    (source / "broken.dcm").write_text("Testpatient")
    assert run(app, [*arguments, "--option", "clean-descriptors"]) == ExitCode.DATA
    said_again = capfd.readouterr()
    assert "not-dicom" in said_again.out
    assert "Testpatient" not in said_again.out + said_again.err
    assert run(app, [*arguments, "--no-options", "--safe-private", "x"]) == ExitCode.DOCUMENT


def test_options_reach_the_images(source: Path, key: Path, tmp_path: Path) -> None:
    options = DeidentificationOptions(chosen=(Option.PATIENT_CHARACTERISTICS,))
    pseudonymise(request_for(source, key, tmp_path / "out", options=options))
    assert {dcmread(BytesIO(data)).PatientSex for data in outputs(tmp_path / "out").values()} == {"F"}
