"""The HTTP API under `/api/v1`: `server` puts it together, each resource has a file of its own."""
