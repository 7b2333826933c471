"""What there is to remark on a file of an image: what it may do, what it looks like, and where it lies."""

import posixpath
from typing import Final

from policies.board.contents.layers import LayerFile
from policies.board.contents.packages import Origin
from policies.board.contents.tar_stream import Kind
from policies.board.contents.tree import Placed

SETUID: Final = "setuid"
SETGID: Final = "setgid"
CAPABILITIES: Final = "capabilities"
DEVICE: Final = "device"
WRITABLE: Final = "writable-by-all"
EXECUTABLE: Final = "executable"
PROGRAM: Final = "program"
PACKED: Final = "packed"
PICKLE: Final = "pickle"
WEIGHTS: Final = "weights"
IMAGE_DATA: Final = "image-data"
STARTS_ITSELF: Final = "starts-by-itself"
COMPILED: Final = "compiled-python"
REPLACES: Final = "replaces-lower-layer"
UNUSUAL: Final = "unusual-place"
STRANGE_NAME: Final = "strange-name"

_USUAL: Final = ("opt/", "usr/local/", "srv/", "app/", "train/")
_PACKAGE_FOLDERS: Final = ("/site-packages/", "/dist-packages/")
_PACKED: Final = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
    b"Rar!",
)
_PICTURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_IMAGE_SUFFIXES: Final = (".dcm", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
_WEIGHT_SUFFIXES: Final = (".pt", ".ckpt", ".h5", ".onnx", ".safetensors", ".npz", ".npy", ".tflite", ".gguf")
_PICKLE_SUFFIXES: Final = (".pkl", ".pickle", ".joblib", ".dill")
_STARTS: Final = ("sitecustomize.py", "usercustomize.py")
_PRELOAD: Final = "etc/ld.so.preload"


def marks_of(path: str, placed: Placed, origin: Origin) -> tuple[str, ...]:
    """Return all that there is to remark on one path."""
    file = placed.file
    checks = (
        (SETUID, bool(file.mode & 0o4000) and file.kind is not Kind.FOLDER),
        (SETGID, bool(file.mode & 0o2000) and file.kind is not Kind.FOLDER),
        (CAPABILITIES, file.capabilities),
        (DEVICE, file.kind in {Kind.DEVICE, Kind.FIFO}),
        (WRITABLE, bool(file.mode & 0o002) and file.kind is Kind.FILE),
        (REPLACES, placed.replaces is not None),
        (UNUSUAL, origin is Origin.OWN and file.kind is not Kind.FOLDER and not _usual(path)),
        (STRANGE_NAME, not path.isprintable()),
        (STARTS_ITSELF, _starts_itself(path, file)),
        *(_by_content(path, file) if file.kind is Kind.FILE else ()),
    )
    return tuple(name for name, holds in checks if holds)


def _usual(path: str) -> bool:
    return path.startswith(_USUAL) or any(folder in f"/{path}" for folder in _PACKAGE_FOLDERS)


def _starts_itself(path: str, file: LayerFile) -> bool:
    if file.kind is Kind.FOLDER:
        return False
    folder, name = posixpath.split(path)
    # A line of a .pth file that begins with "import" runs whenever Python starts.
    return path == _PRELOAD or name in _STARTS or (name.endswith(".pth") and folder.endswith("-packages"))


def _by_content(path: str, file: LayerFile) -> tuple[tuple[str, bool], ...]:
    name, head = path.lower(), file.head
    is_image = head[128:132] == b"DICM" or name.endswith(_IMAGE_SUFFIXES) or head.startswith(_PICTURES)
    is_weights = name.endswith(_WEIGHT_SUFFIXES)
    return (
        (EXECUTABLE, bool(file.mode & 0o111)),
        (PROGRAM, head.startswith(b"\x7fELF")),
        (PACKED, head.startswith(_PACKED) and not is_weights and not is_image),
        (
            PICKLE,
            name.endswith(_PICKLE_SUFFIXES)
            or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and len(head) > 1),
        ),
        (WEIGHTS, is_weights),
        (IMAGE_DATA, is_image),
        (COMPILED, name.endswith((".pyc", ".pyo"))),
    )
