"""What of exact tables is too telling, and what has to go with it so that nothing follows by subtraction."""
