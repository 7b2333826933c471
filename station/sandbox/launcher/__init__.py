"""The launcher: the only one that reaches the container engine, its socket, and the client of it."""
