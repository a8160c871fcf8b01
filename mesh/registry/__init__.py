"""OCI registries: `port` is what the steps see, `client` the real one, `builtin` a small registry of our own."""
