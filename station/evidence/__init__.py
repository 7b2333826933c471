"""What a run leaves as evidence at its station: kept when it is admitted, collected when somebody asks."""
