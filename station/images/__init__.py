"""A train's image at the station: where its layers come from, what of them is refused, what is thrown away."""
