"""What map programs share: they are given one patient, in a container of their own, and write one row."""

from algorithms.one_patient.nifti import NotAVolumeError, Volume, read_volume, upright
from algorithms.one_patient.program import NoRowError, Patient, Scan, write_row

__all__ = [
    "NoRowError",
    "NotAVolumeError",
    "Patient",
    "Scan",
    "Volume",
    "read_volume",
    "upright",
    "write_row",
]
