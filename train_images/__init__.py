"""How trains are built, checked and packed."""
