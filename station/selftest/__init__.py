"""`pht-station selftest`: a hostile train that ships with the station tries every escape on this very host."""
