"""What the engine is given of a train's image."""
