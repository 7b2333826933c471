"""Would this train run at these stations? Asked of the stations' profiles, with the rules that the stations ask."""
