"""``python -m algorithms.ct_lung_involvement``: one patient's row."""

from algorithms.ct_lung_involvement.patient import row_of
from algorithms.one_patient import write_row

if __name__ == "__main__":
    write_row(row_of)
