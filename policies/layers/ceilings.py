"""How much a layer may hold, and everything it is refused for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from policies.blobs import MAX_IMAGE_BYTES
from policies.errors import RefusedError
from policies.refusals import RefusalCode


class LayerFault(StrEnum):
    """Why a layer is refused. The value is the detail that is shown: it never quotes what the layer holds."""

    # Ceilings
    BYTES = "it is larger than a layer may be"
    ENTRIES = "it holds more files than a layer may"
    NAMES = "its names are longer together than a layer's may be"
    PATH = "a path is longer than it may be"
    COMPONENT = "a part of a path is longer than file systems take"
    DEPTH = "a path is deeper than it may be"
    EXTENDED = "an extended header is larger than it may be"
    EXTENDED_TOTAL = "its extended headers are larger together than they may be"
    LINK_TARGET = "a link's target is longer than it may be"
    STEPS = "its links and folders lead too far round to be followed"
    RATIO = "it unpacks to far more than what was packed"
    # The archive
    CUT_SHORT = "it is cut short"
    CHECKSUM = "a header's checksum is wrong"
    FORMAT = "a header is of a form that is read differently by different programs"
    NUMBER = "a number in a header is malformed"
    RECORD = "an extended header is malformed"
    RECORD_TWICE = "an extended header says something twice"
    RECORD_UNKNOWN = "an extended header says something that no train needs"
    HEADER_TWICE = "several extended headers belong to one entry"
    HEADER_ALONE = "an extended header belongs to no entry"
    GLOBAL = "an extended header is for all entries"
    TRAILING = "something follows its end"
    PACKING = "it is packed in a form that cannot be read"
    # Names
    NAME_EMPTY = "an entry has no name"
    NAME_ZERO = "a name holds a zero byte"
    ABSOLUTE = "a path is absolute"
    DOTS = "a path has a part '..'"
    TWICE = "a path stands twice"
    BELOW_NO_FOLDER = "an entry lies below a link or a file of the same layer"
    WHITEOUT = "an entry that removes files of a lower layer is malformed"
    # Kinds
    DEVICE = "it holds a device node"
    FIFO = "it holds a named pipe"
    SPARSE = "it holds a sparse file"
    KIND = "it holds an entry of a kind that no train needs"
    FILE_IS_FOLDER = "a file's name ends like a folder's"
    SIZE_OF_NO_FILE = "an entry that is no file has contents"
    ROOT = "the image's root is not a folder"
    # Links
    SYMLINK_EMPTY = "a symbolic link points nowhere"
    SYMLINK_LEAVES = "a symbolic link leads out of the image"
    HARD_LINK_LEAVES = "a hard link leads out of the image"
    HARD_LINK_TARGET = "a hard link is to something that is no file standing before it in the layer"
    # Attributes
    XATTR = "an entry has an extended attribute that gives rights or changes how files are stacked"


class LayerRefusedError(RefusedError):
    """A layer is not taken.

    Attributes:
        fault: why.
        entry: which entry of the layer, counted from 1; 0 where it is not about one.
    """

    def __init__(self, fault: LayerFault, entry: int = 0) -> None:
        where = f"entry {entry} of a layer" if entry else "a layer"
        super().__init__(
            RefusalCode.IMAGE_LAYER,
            f"{where}: {fault.value}",
            hint="`pht-train pack` says the same at the researcher's desk; the image must be built otherwise.",
        )
        self.fault = fault
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most a layer may hold. What the reader keeps in memory follows from these and not from the layer.

    Attributes:
        bytes: of the uncompressed layer.
        entries: files, folders, links.
        path_bytes: of one path.
        depth: parts of one path.
        name_bytes: of all paths and link targets together.
        extended_bytes: of one extended header.
        extended_total: of all extended headers together.
        steps: how often a link or a folder above an entry is looked up.
        ratio: uncompressed bytes per compressed byte, beyond the first `ratio_free_bytes`.
        ratio_free_bytes: this much may come out of anything.
    """

    bytes: int = MAX_IMAGE_BYTES
    entries: int = 400_000
    path_bytes: int = 2048
    depth: int = 64
    name_bytes: int = 64 << 20
    extended_bytes: int = 64 << 10
    extended_total: int = 256 << 20
    steps: int = 5_000_000
    ratio: int = 200
    ratio_free_bytes: int = 64 << 20


CEILINGS: Final = Ceilings()
