"""Masks on images: NIfTI files aligned to their series, DICOM Segmentations, on their way to the handover."""
