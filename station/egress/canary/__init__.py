"""How well an update tells its own members from patients held back."""
