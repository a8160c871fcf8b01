"""Secrets by name, and credentials of registries: from the environment, files, Docker's `config.json` and helpers."""
