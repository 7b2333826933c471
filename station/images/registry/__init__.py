"""An OCI registry as a source of images: the distribution API, pulled by digest."""
