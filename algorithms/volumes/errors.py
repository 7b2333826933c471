"""What can be wrong with a volume's file.

    VolumeError              VOLUME_UNREADABLE   the file is no volume that can be memory-mapped
    `-- GridError            VOLUME_GRID         two files that should lie on one grid do not

In a train the runtime answers the code in the place of the text, which names a case and stays at the hospital.
"""


class VolumeError(Exception):
    """A file that is no volume which can be read through a memory map; the text says what to do."""

    pht_error_code = "VOLUME_UNREADABLE"


class GridError(VolumeError):
    """A label map that does not lie on its image's own grid."""

    pht_error_code = "VOLUME_GRID"
