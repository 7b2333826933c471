"""Keys, and what members sign and say."""
