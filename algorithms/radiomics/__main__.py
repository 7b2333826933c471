"""``python -m algorithms.radiomics``: one patient's row."""

from algorithms.one_patient import write_row
from algorithms.radiomics.patient import row_of

if __name__ == "__main__":
    write_row(row_of)
