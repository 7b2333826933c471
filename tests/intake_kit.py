"""What the tests of intake share: images of made-up patients, folders of them, and what reached the handover."""

import io
import zipfile
from pathlib import Path

from pseudonym_files import file_bytes, fixed_key, identified

from station.handover import (
    Content,
    InstanceRecord,
    InstancesContent,
    MergedContent,
    RemovedContent,
    load_public_key,
    read_handover,
    read_instance,
)
from station.intake.installation import init_intake
from station.intake.paths import IntakePaths

CANARIES = ("Testpatient", "3748755", "Amstelrijk", "A20086678", "19751122")


def fixed_intake(home: Path) -> IntakePaths:
    """An intake whose key is the same in every run: a random key's UIDs hold any short number now and then."""
    paths = IntakePaths(home)
    paths.keys.mkdir(parents=True)
    fixed_key(paths.keys, paths.pseudonym_key.name)
    return init_intake(home)


def uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{number}"


def image(number: int, patient: str = "3748755", study: int = 1000, **elements: object) -> bytes:
    return file_bytes(
        identified(
            **{
                "SOPInstanceUID": uid(number), "SeriesInstanceUID": uid(study + 500), "StudyInstanceUID": uid(study),
                "PatientID": patient, "AccessionNumber": f"A{study}", **elements,
            }
        )
    )  # fmt: skip


def folder_of(base: Path, *files: bytes) -> Path:
    folder = base / f"source-{len(list(base.iterdir()))}"
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"{number:04d}.dcm").write_bytes(data)
    return folder


def zip_of(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def contents(paths: IntakePaths) -> list[Content]:
    return [
        entry.content for entry in read_handover(paths.handover, load_public_key(paths.handover_public_key))
    ]


def live_instances(paths: IntakePaths) -> dict[tuple[str, str], InstanceRecord]:
    """What compute would hold after it took up the whole log."""
    held: dict[tuple[str, str], InstanceRecord] = {}
    for content in contents(paths):
        match content:
            case InstancesContent():
                for record in content.instances:
                    assert read_instance(paths.handover, record)
                    held[record.collection, record.sop_instance_uid] = record
            case RemovedContent():
                for removal in content.removals:
                    del held[removal.collection, removal.sop_instance_uid]
            case MergedContent():
                into = {merge.patient: merge.into for merge in content.merges}
                for key, record in held.items():
                    held[key] = record.model_copy(
                        update={"patient": into.get(record.patient, record.patient)}
                    )
    return held
