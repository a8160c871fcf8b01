"""Declared state: how a document becomes records of `mesh.state`."""
