"""A run's result in the forms that torch and MONAI load: a checkpoint, and a MONAI bundle."""
