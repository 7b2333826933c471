"""What the secretary publishes, what is in force, and what the witness vouches for."""
