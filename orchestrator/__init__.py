"""What the consortium runs."""
