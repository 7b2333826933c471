"""What a train marks and measures in this hospital's images, kept by the hospital as DICOM; nothing of it leaves."""
