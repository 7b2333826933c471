"""How much of the lungs on a chest CT is ground glass or consolidation: found by image processing, one row per patient."""
