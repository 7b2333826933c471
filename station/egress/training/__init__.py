"""The rules on arrays: a training reply becomes canonical deltas from the inbound weights."""
