"""Radiomics features of a lesion on CT as the Image Biomarker Standardisation Initiative defines them: one row per patient."""
