"""The train: one patient in, one row out."""
