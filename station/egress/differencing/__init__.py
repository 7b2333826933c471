"""What a release would tell by its difference from earlier releases of the same requester."""
