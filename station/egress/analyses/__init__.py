"""The station's own counting: rows of patients become exact tables. Nothing here leaves as it is."""
