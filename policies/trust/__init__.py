"""The board's TUF repository: made, published, kept fresh, and verified."""
