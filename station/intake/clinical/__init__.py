"""Clinical data and labels, joined on the patient under a minimal-dataset profile."""
