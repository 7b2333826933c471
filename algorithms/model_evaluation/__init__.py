"""External validation: scores a model that somebody brings on patients it never saw, and leaves all counting to the station."""
