"""A train or a policy in plain words, for people who decide."""
