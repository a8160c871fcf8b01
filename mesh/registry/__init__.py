"""OCI registries: `port` is the interface, `client` implements it over HTTP, `builtin` is a small registry."""
