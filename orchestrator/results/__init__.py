"""What a finished run leaves: the model or tables, the metrics as JSON and picture, and a provenance statement."""
